"""Stores that a command looks into."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshwright.core.errors import MeshError
from meshwright.core.store import Store

STORE_S = 5.0


class Stores:
    """Opens stores as they are, and writes nothing; one that cannot be used is tried once, and waited for once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._unusable: dict[str, MeshError] = {}

    @asynccontextmanager
    async def opened(self, url: str) -> AsyncIterator[Store]:
        """Opens a store; one that would lose what it acknowledged is refused.

        Raises:
            SetupError: It cannot be used; says why.
        """
        store = Store(url, timeout_s=STORE_S)
        try:
            await self._open(store, url)
            yield store
        finally:
            await store.close()

    async def _open(self, store: Store, url: str) -> None:
        async with self._turn:
            if error := self._unusable.get(url):
                raise error
            try:
                await store.open()
            except MeshError as error:
                self._unusable[url] = error
                raise
