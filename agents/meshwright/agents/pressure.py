"""Pressure: how full the store is; above the mark nothing new is taken, and what was accepted has room to end."""

import shutil

from meshwright.core.errors import StoreDeniedError, StoreFullError
from meshwright.core.store import FULL_RETRY_S, Store

MOST = 0.8
LEAST_FREE = 2**30
"""A disk that is fuller than `MOST` and still has this many bytes left is not full."""


class Pressure:
    """Watches memory and, where it is on this machine, the disk of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reason = ""

    async def measure(self) -> None:
        """Looks how full the store is now."""
        self.reason = await self._memory() or await self._disk()

    async def _memory(self) -> str:
        (info,) = await self._store.run(("INFO", "memory"))
        used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        return f"the store's memory is {used / most:.0%} full" if most and used > MOST * most else ""

    async def _disk(self) -> str:
        if not self._store.url.startswith("unix:"):
            return ""
        try:
            (configuration,) = await self._store.run(("CONFIG", "GET", "dir"))
            usage = shutil.disk_usage(configuration[b"dir"])
        except (KeyError, OSError, StoreDeniedError):  # a user of few rights is not told where
            return ""
        is_full = usage.free < (1 - MOST) * usage.total and usage.free < LEAST_FREE
        return f"the store's disk has {usage.free >> 20} MiB left" if is_full else ""

    def check(self) -> None:
        """Lets new work in.

        Raises:
            StoreFullError: There is no room for it.
        """
        if self.reason:
            raise StoreFullError(f"{self.reason}: try again later", retry_after_s=FULL_RETRY_S)
