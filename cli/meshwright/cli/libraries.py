"""Libraries of functions that a store holds: of which versions, who uses them, which of them nobody needs."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshwright.core.store import LABEL, SEEN_S, Library, Store
from meshwright.core.store_user import ADMIN

LOOKED_S = 2 * SEEN_S
"""How long connections are looked at: a process whose connection was cut is back by then."""
LOOK_EVERY_S = 0.5
NAME = re.compile(r"mw_(journal|registry|keys)_[0-9a-f]{10}")
OF_MESH = re.compile(rf"{LABEL}\(([^()]*)\)")
COPIES = frozenset("SM")
"""Flags of connections between a store and its copies."""


@dataclass(slots=True)
class Use:
    """Who is connected to a store.

    Attributes:
        many: Connections by the library whose functions they call; the most that were seen at once.
        unknown: Those that do not say what they call, `user@address`: processes that are too old for it, and strangers.
    """

    many: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)


async def held(store: Store) -> list[str]:
    """Lists our libraries in a store, of all versions."""
    (found,) = await store.run(("FUNCTION", "LIST", "LIBRARYNAME", "mw_*"))
    names = (library[b"library_name"].decode() for library in found)
    return sorted(name for name in names if NAME.fullmatch(name))


async def in_use(store: Store, looked_s: float = LOOKED_S) -> Use:
    """Looks for a while at who is connected, and which libraries they say they use.

    Raises:
        StoreDeniedError: The store's user is no admin.
    """
    use, ends = Use(), time.monotonic() + looked_s
    while True:
        (listed,) = await store.run(("CLIENT", "LIST"))
        look(use, listed.decode(errors="replace"))
        if time.monotonic() >= ends:
            return use
        await asyncio.sleep(LOOK_EVERY_S)


def look(use: Use, listed: str) -> None:
    """Adds what a list of connections tells. Pure."""
    many: Counter[str] = Counter()
    for line in listed.splitlines():
        words = (word.partition("=") for word in line.split(" "))
        facts = {name: value for name, _, value in words}
        ours = OF_MESH.fullmatch(facts.get("lib-name", ""))
        if ours:
            many.update(name for name in ours[1].split(";") if name)
        elif not is_passed_over(facts):
            use.unknown.add(f"{facts.get('user', '?')}@{facts.get('addr', '?')}")
    use.many |= many


def is_passed_over(facts: dict[str, str]) -> bool:
    """Whether a connection that does not say what it calls calls nothing, or has had no time yet to say it. Pure."""
    return facts.get("user") == ADMIN or facts.get("age") == "0" or bool(COPIES & set(facts.get("flags", "")))


async def prune(store: Store, needed: Iterable[Library], use: Use) -> list[str]:
    """Deletes the libraries that `unused` lists; returns their names.

    Raises:
        StoreDeniedError: The store's user is no admin.
    """
    stale = unused(await held(store), needed, use)
    await store.run(*(("FUNCTION", "DELETE", name) for name in stale))
    return stale


def unused(names: Iterable[str], needed: Iterable[Library], use: Use) -> list[str]:
    """Lists libraries that nobody uses and that are not needed; none where it is not known who uses what. Pure."""
    if use.unknown:
        return []
    kept = {library.name for library in needed} | set(use.many)
    return [name for name in names if name not in kept]
