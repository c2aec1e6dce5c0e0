"""The audit: who did what, when, and what came of it; a chain of lines for each tenant in each partition."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from meshwright.core.audit_chain import AuditLine, spelled
from meshwright.core.facts import shortened
from meshwright.core.store import MESH, Store, partition_key, segment

AUDIT_KEPT = 10_000
"""Lines that a chain keeps, unless a setting says otherwise."""
FACT_BYTES = 256
"""How much is written of one fact."""
PAGE = 1_000
"""Lines that are read in one round trip."""
OPERATOR = "(operator)"
"""Who did it, where somebody works at the store: no caller can bear this name and its tenant."""
OF_MESH = ""
"""The tenant of what is everybody's."""

Place = tuple[str, str]
"""Where a chain is: partition and tenant."""


def line_of(by: str, outcome: str = "", *, kept: int = AUDIT_KEPT, **facts: str | int) -> str:
    """Writes what a function of the store makes a line of.

    Args:
        by: Who did it: a principal; empty: the mesh itself.
        outcome: `ok`, a reason, a decision; one word.
        kept: Lines that the chain keeps.
        facts: Ids, names and digests, never content; an empty one is left out.
    """
    told: dict[str, str | int] = {"by": shortened(by, FACT_BYTES)}
    told |= {
        name: shortened(value, FACT_BYTES) if isinstance(value, str) else value
        for name, value in facts.items()
        if value != ""
    }
    return f"{kept} {outcome} {spelled(told)}"


HEAD = re.compile(r"([0-9]{1,16}) [0-9]{1,16} (\S+) ([0-9]{1,16})")


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a chain beside its lines.

    Attributes:
        number: Of the newest line; 0: nothing is known.
        link: Its link.
        first: Number of the oldest line that is kept.
    """

    number: int = 0
    link: str = ""
    first: int = 1


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
        found = await self._store.run(*(("SMEMBERS", partition_key(one, "audit")) for one in partitions))
        known = [
            (partition, name.decode())
            for partition, names in zip(partitions, found, strict=True)
            for name in sorted(names)
        ]
        return [place for place in known if tenant is None or place[1] == segment(tenant)]

    async def head(self, place: Place) -> Head:
        """Returns what is known of a chain beside its lines."""
        (found,) = await self._store.run(("GET", partition_key(place[0], "audit", f"{place[1]}:head")))
        parts = HEAD.fullmatch((found or b"").decode(errors="replace"))
        return Head(int(parts[1]), parts[2], int(parts[3])) if parts else Head()

    async def lines(self, place: Place, since_ms: int = 0) -> AsyncIterator[AuditLine]:
        """Yields a chain's lines, oldest first, those that come meanwhile included.

        Args:
            place: Which chain.
            since_ms: From this time on, in milliseconds of the store's clock.
        """
        key, begin = partition_key(place[0], "audit", f"{place[1]}:chain"), str(since_ms)
        while True:
            (rows,) = await self._store.run(("XRANGE", key, begin, "+", "COUNT", PAGE))
            for item_id, fields in rows:
                yield parsed(place, item_id, fields)
            if len(rows) < PAGE:
                return
            begin = f"({rows[-1][0].decode()}"

    async def read(self, tenant: str) -> list[AuditLine]:
        """Returns all lines of a tenant, oldest first."""
        found = [line for place in await self.places(tenant) async for line in self.lines(place)]
        return sorted(found, key=lambda one: (one.time_ms, one.partition, one.number))


def parsed(place: Place, item_id: bytes, fields: Mapping[bytes, bytes]) -> AuditLine:
    """Reads a line; what somebody has put there that is none is read as far as it goes."""

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode(errors="replace")

    time_ms, _, number = item_id.decode().partition("-")
    return AuditLine(
        partition=place[0],
        tenant=place[1],
        number=int(number),
        time_ms=int(time_ms),
        event=text(b"event"),
        about=text(b"about"),
        outcome=text(b"outcome"),
        text=text(b"facts"),
        link=text(b"link"),
    )
