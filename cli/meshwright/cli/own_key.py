"""An API key of a command's own, for the mesh that it starts: made with the least scopes, and revoked in the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from meshwright.cli.settings import CliSettings
from meshwright.core.api_key import LIBRARY, ApiKeys
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.store import Store

LIFE_S = 86_400
"""The key ends by itself then, where its mesh was gone before it could be revoked."""
REVOKED_S = 5.0
TENANT = "default"


@contextlib.asynccontextmanager
async def own_key(store_url: str, name: str, scopes: Collection[str]) -> AsyncIterator[str]:
    """Yields what to show the edge of a mesh that has just been started.

    That is a key of its own where the mesh takes keys: it has a store of its own, which knows no other. Where it takes
    tokens alone it is that of MESHWRIGHT_API_KEY, and where it asks nobody it is empty.

    Args:
        store_url: The mesh's store.
        name: Of the key, and of the principal that acts by it.
        scopes: What the command does.

    Raises:
        SetupError: The mesh takes tokens alone, and there is none.
        StoreUnavailableError: The store does not answer.
    """
    settings = CliSettings.load()
    if settings.auth == "none":
        yield ""
    elif "keys" in settings.auth.split(","):
        async with _made(store_url, name, scopes) as key:
            yield key
    elif settings.api_key:
        yield settings.api_key
    else:
        needed = " ".join(sorted(scopes))
        raise SetupError(f"this mesh takes tokens alone: set MESHWRIGHT_API_KEY to one that holds {needed}")


@contextlib.asynccontextmanager
async def _made(store_url: str, name: str, scopes: Collection[str]) -> AsyncIterator[str]:
    store = Store(store_url, LIBRARY)
    try:
        await store.open()
        keys = ApiKeys(store)
        key, made = await keys.create(name, scopes, tenant=TENANT, life_s=LIFE_S)
        try:
            yield key
        finally:
            with contextlib.suppress(MeshError, TimeoutError):  # then the mesh is gone, and its keys with it
                async with asyncio.timeout(REVOKED_S):
                    await keys.revoke(made.key_id)
    finally:
        await store.close()
