"""Public keys of edges, with which services check identities."""

from meshwright.core.grant import Signer
from meshwright.core.store import MESH, Store, partition_key

PREFIX = "edge-"
"""How edges are named; for other names the store is not asked."""
KEPT_S, BEAT_S = 300, 5.0
"""How long a key is known after it was last announced, and how often it is."""


class EdgeKeys:
    """The public keys of edges, in the store: those of processes that are here, each for `KEPT_S`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def announce(self, signer: Signer) -> None:
        """Makes an edge's key known; to be repeated every `BEAT_S`."""
        key = partition_key(MESH, "edge", signer.key_id)
        await self._store.run(("SET", key, signer.public_key, "EX", KEPT_S))

    async def find(self, key_id: str) -> bytes | None:
        """Returns an edge's public key, 32 bytes; None: no such edge is here."""
        if not key_id.startswith(PREFIX):
            return None
        (found,) = await self._store.run(("GET", partition_key(MESH, "edge", key_id)))
        return found if isinstance(found, bytes) else None
