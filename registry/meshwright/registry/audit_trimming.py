"""Trimming of the audit: the registry lets go of lines that a chain need not keep, and nobody else can."""

import asyncio
from collections.abc import AsyncIterator

import structlog

from meshwright.core.audit import AUDIT_KEPT, tenants_key
from meshwright.core.errors import MeshError
from meshwright.core.recurring import Recurring
from meshwright.core.store import MESH, Store
from meshwright.registry.store import LIBRARY

log = structlog.get_logger("audit")
SWEEP_S = 10.0
CHAINS_AT_ONCE = 20
"""Chains that the store looks at in one step: each of them loses a hundred lines at most."""
MOST_STEPS = 1_000
"""Steps in a row for the same chains: then others have their turn."""


class AuditTrimming:
    """Trims chains, step by step; several registries may do it at once.

    Args:
        store: An open store that holds `LIBRARY`, whose user may trim.
        kept: Lines that a chain keeps.
    """

    def __init__(self, store: Store, kept: int = AUDIT_KEPT) -> None:
        self._store = store
        self._kept = kept
        self._failing = Recurring()

    async def sweep(self) -> None:
        """Trims what has grown too long, for as long as the service runs."""
        while True:
            try:
                await self.trim()
            except MeshError as error:
                if self._failing.is_news():
                    log.warning("audit_untrimmed", error=error.message)
            else:
                if self._failing.is_over():
                    log.info("audit_trimmed_again")
            await asyncio.sleep(SWEEP_S)

    async def trim(self) -> None:
        """Trims what has grown too long, once."""
        for partition in (MESH, *map(str, range(self._store.partitions))):
            async for tenants in self._tenants(partition):
                await self._trim(partition, tenants)

    async def _trim(self, partition: str, tenants: list[bytes]) -> None:
        function, slot = LIBRARY.function("trim"), tenants_key(partition)
        for _ in range(MOST_STEPS):
            if not tenants:
                return
            tenants = await self._store.call(function, slot, partition, self._kept, *tenants)

    async def _tenants(self, partition: str) -> AsyncIterator[list[bytes]]:
        """Yields who has a chain in a partition, some at a time."""
        cursor = 0
        while True:
            command = ("SSCAN", tenants_key(partition), cursor, "COUNT", CHAINS_AT_ONCE)
            ((cursor, found),) = await self._store.run(command)
            for start in range(0, len(found), CHAINS_AT_ONCE):
                yield found[start : start + CHAINS_AT_ONCE]
            if not cursor:
                return
