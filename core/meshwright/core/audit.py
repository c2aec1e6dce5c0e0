"""The audit: who did what, when, and what came of it; a chain of lines for each tenant in each partition."""

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from meshwright.core.audit_chain import UNREADABLE, AuditLine, spelled
from meshwright.core.audit_pages import ChainPages
from meshwright.core.facts import shortened
from meshwright.core.store import MESH, Store, partition_key, segment

AUDIT_KEPT = 10_000
"""Lines that a chain keeps, unless a setting says otherwise."""
FACT_BYTES = 256
"""How much is written of one fact."""
SHOWN_BYTES = 256
"""How much is shown of what is no line."""
OPERATOR = "(operator)"
"""Who did it, where somebody works at the store: no caller can bear this name and its tenant."""
OF_MESH = ""
"""The tenant of what is everybody's."""
LINES, COUNT, TENANTS = "lines", "count", ":tenants"
"""How the keys of a chain end, and the name of the list of those who have one."""
LINE = re.compile(rb"([0-9a-f]{40}) ([0-9]{1,15})-([0-9]{1,15}) ([^ ]+) ([^ ]*) ([^ ]*) (.*)", re.DOTALL)
LISTS, STRINGS = frozenset({b"list", b"none"}), frozenset({b"string", b"none"})
"""What the keys of a chain may be."""
NUMBER = re.compile(rb"[0-9]{1,15}")

Place = tuple[str, str]
"""Where a chain is: partition and tenant."""


def line_of(by: str, outcome: str = "", **facts: str | int) -> str:
    """Writes what a function of the store makes a line of.

    Args:
        by: Who did it: a principal; empty: the mesh itself.
        outcome: `ok`, a reason, a decision; one word.
        facts: Ids, names and digests, never content; an empty one is left out.
    """
    told: dict[str, str | int] = {"by": shortened(by, FACT_BYTES)}
    told |= {
        name: shortened(value, FACT_BYTES) if isinstance(value, str) else value
        for name, value in facts.items()
        if value != ""
    }
    return f"{outcome} {spelled(told)}"


def tenants_key(partition: str) -> str:
    """Names the list of those who have a chain in a partition."""
    return partition_key(partition, "audit", TENANTS)


def chain_key(place: Place, what: str) -> str:
    """Names a key of a chain: its `LINES`, or their `COUNT`."""
    return partition_key(place[0], "audit", f"{place[1]}:{what}")


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a chain beside its lines.

    Attributes:
        number: How many lines there ever were; 0: nothing is known.
        first: The oldest line that is kept; None: there is none.
        is_chain: Whether its keys hold what they should.
    """

    number: int = 0
    first: AuditLine | None = None
    is_chain: bool = True


class AuditReader:
    """Reads chains, for whoever may: nothing here asks who that is.

    Args:
        store: An open store; none of its functions are needed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def places(self, tenant: str | None = None) -> list[Place]:
        """Lists the chains there are, or those of one tenant."""
        partitions = [MESH, *map(str, range(self._store.partitions))]
        found = await self._store.run(*(("SMEMBERS", tenants_key(one)) for one in partitions))
        known = [
            (partition, name.decode(errors="backslashreplace"))
            for partition, names in zip(partitions, found, strict=True)
            for name in sorted(names)
        ]
        return [place for place in known if tenant is None or place[1] == segment(tenant)]

    async def head(self, place: Place) -> Head:
        """Returns what is known of a chain beside its lines."""
        lines, count = chain_key(place, LINES), chain_key(place, COUNT)
        kinds = await self._store.run(("TYPE", lines), ("TYPE", count))
        if kinds[0] not in LISTS or kinds[1] not in STRINGS:
            return Head(is_chain=False)
        number, first = await self._store.run(("GET", count), ("LINDEX", lines, 0))
        if number is not None and not NUMBER.fullmatch(number):
            return Head(is_chain=False)
        return Head(int(number or 0), None if first is None else parsed(place, first))

    async def lines(self, place: Place, since_ms: int = 0) -> AsyncIterator[AuditLine]:
        """Yields a chain's lines, oldest first, those that come meanwhile included.

        Lines that are trimmed meanwhile and were not read yet are left out.

        Args:
            place: Which chain.
            since_ms: From this time on, in milliseconds of the store's clock.
        """
        pages = ChainPages(self._store, chain_key(place, LINES))
        is_due = not since_ms
        if since_ms:
            await pages.go_back(lambda text: parsed(place, text).time_ms >= since_ms)
        async for text in pages.texts():
            line = parsed(place, text)
            is_due = is_due or line.time_ms >= since_ms
            if is_due:
                yield line

    async def read(self, tenant: str) -> list[AuditLine]:
        """Returns all lines of a tenant, oldest first."""
        found = [line for place in await self.places(tenant) async for line in self.lines(place)]
        return sorted(found, key=lambda one: (one.time_ms, one.partition, one.number))


def parsed(place: Place, text: bytes) -> AuditLine:
    """Reads a line; what somebody has put there that is none is read as one that is `UNREADABLE`."""
    found = LINE.fullmatch(text)
    if found is None:
        link = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        shown = text[:SHOWN_BYTES].decode(errors="replace")
        return AuditLine(*place, 0, 0, UNREADABLE, "", "", shown, link)
    link, time_ms, number, event, about, outcome, facts = (part.decode(errors="replace") for part in found.groups())
    return AuditLine(*place, int(number), int(time_ms), event, about, outcome, facts, link)
