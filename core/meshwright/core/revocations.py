"""Revocations: which API keys were revoked of late, in one place that processes with open streams read."""

from meshwright.core.store import MESH, Store, partition_key

KEPT_MS = 2 * 86_400_000
"""How long a revocation can be read: longer than the edge lets any stream stay open."""
PLACE = partition_key(MESH, "revoked")


class Revocations:
    """The ids of revoked keys by the time of their revocation.

    Args:
        store: Needs none of the store's functions.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, key_id: str, now_ms: int) -> None:
        """Notes that a key was revoked, and forgets what nobody needs any more.

        Args:
            key_id: Of the key.
            now_ms: The store's time.

        Raises:
            StoreUnavailableError: It may or may not be noted; it may be repeated.
        """
        await self._store.run(
            ("ZADD", PLACE, now_ms, key_id),
            ("ZREMRANGEBYSCORE", PLACE, "-inf", now_ms - KEPT_MS),
            ("PEXPIRE", PLACE, KEPT_MS),
        )

    async def since(self, moment_ms: int) -> tuple[int, frozenset[str]]:
        """Returns the store's time in milliseconds, and the keys that were revoked since a moment of that time.

        They are no more than the keys that a mesh can have, revoked ones included.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        (seconds, micros), key_ids = await self._store.run(("TIME",), ("ZRANGEBYSCORE", PLACE, moment_ms, "+inf"))
        return int(seconds) * 1000 + int(micros) // 1000, frozenset(key_id.decode() for key_id in key_ids)
