"""Announced keys: public keys of edges, that check identities, and of registries, for grants of calls."""

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

import structlog

from meshwright.core.errors import MeshError
from meshwright.core.grant import Signer
from meshwright.core.recurring import Recurring
from meshwright.core.store import MESH, Store, partition_key

log = structlog.get_logger("signing")

KEPT_S, BEAT_S = 300, 5.0
"""How long a key is known after it was last announced, and how often it is."""
MISSED = 3
"""An edge that has missed so many announcements is taken for gone."""
SCANNED = 10_000
"""Keys that one look of a scan goes over."""


class AnnouncedKeys(ABC):
    """Public keys of one kind of process, in the store: of those that are here, each for `KEPT_S`."""

    prefix: ClassVar[str]
    """How their keys are named; for other names the store is not asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    def place(self, key_id: str) -> str:
        """Spells where a key stands; who may write there is trusted to be of this kind."""

    async def announce(self, signer: Signer) -> None:
        """Makes a key known, before anything is signed with it."""
        await self._store.run(("SET", self.place(signer.key_id), signer.public_key, "EX", KEPT_S))

    async def keep(self, signer: Signer) -> None:
        """Keeps a key known, for as long as its process runs."""
        failing = Recurring()
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.announce(signer)
            except MeshError as error:
                if failing.is_news():
                    log.warning("key_not_announced", error=error.message)
            else:
                if failing.is_over():
                    log.info("key_announced_again")

    async def find(self, key_id: str) -> bytes | None:
        """Returns a public key, 32 bytes; None: no such process is here."""
        if not key_id.startswith(self.prefix):
            return None
        (found,) = await self._store.run(("GET", self.place(key_id)))
        return found if isinstance(found, bytes) else None


class RegistryKeys(AnnouncedKeys):
    """Keys of registries: only they may write them, for with them grants are signed."""

    prefix = "registry-"

    def place(self, key_id: str) -> str:
        """Spells where a registry's key stands."""
        return partition_key(MESH, "issuer", key_id)


class EdgeKeys(AnnouncedKeys):
    """Keys of edges, with which identities are signed and nothing else."""

    prefix = "edge-"

    def place(self, key_id: str) -> str:
        """Spells where an edge's key stands."""
        return partition_key(MESH, "edge", key_id)

    async def alive(self) -> list[str]:
        """Returns the ids of the edges that are here; only the store's admin may look around like this.

        Raises:
            MeshError: The store does not answer, or its user may not.
        """
        keys, cursor = set[bytes](), b"0"
        pattern = self.place(f"{self.prefix}*")
        while True:
            ((cursor, page),) = await self._store.run(("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED))
            keys.update(page)
            if int(cursor) == 0:
                break
        left = await self._store.run(*(("PTTL", key) for key in keys)) if keys else []
        here = (KEPT_S - MISSED * BEAT_S) * 1000
        return sorted(key.decode().rpartition(":")[2] for key, ms in zip(keys, left, strict=True) if ms >= here)
