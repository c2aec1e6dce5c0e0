"""The doorman: what the gateway's process needs to find out who is calling."""

import asyncio
import secrets

from meshwright.core.announced_keys import EdgeKeys
from meshwright.core.api_key import LIBRARY, ApiKeys
from meshwright.core.errors import KeyNotFoundError
from meshwright.core.grant import Signer
from meshwright.core.process import ended
from meshwright.core.server import Register, bound
from meshwright.core.signed_token import IssuerKey
from meshwright.core.store import Store
from meshwright.gateway.authentication import takes_keys, takes_tokens
from meshwright.gateway.authorization import SERVICE, Authorization
from meshwright.gateway.claims import Claims
from meshwright.gateway.key_service import KeyService
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.gateway.v1.key_service_pb2_grpc import add_KeyServiceServicer_to_server


class Doorman:
    """Serves `Authorization`, and keeps the key known with which it signs.

    Args:
        settings: How callers say who they are, and where the store is.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._store = Store(settings.store_url, *((LIBRARY,) if takes_keys(settings) else ()))
        self._signer = Signer(f"{EdgeKeys.prefix}{secrets.token_hex(8)}")
        self._edges = EdgeKeys(self._store)
        self._keys = keys = ApiKeys(self._store) if takes_keys(settings) else None
        claims = Claims(settings.jwt_tenant_claim, settings.jwt_default_tenant) if takes_tokens(settings) else None
        self._authorization = Authorization(self._signer, keys, claims, settings.host)
        self._announcing: asyncio.Task[None] | None = None

    @property
    def services(self) -> dict[str, Register]:
        """What a server adds: see `Server`."""
        services: dict[str, Register] = {SERVICE: self._authorization.register}
        if self._keys:
            services["gateway.v1.KeyService"] = bound(add_KeyServiceServicer_to_server, KeyService(self._keys))
        return services

    async def issuer(self, key_id: str) -> IssuerKey:
        """Returns the one key that the gateway believes: its own.

        Raises:
            KeyNotFoundError: It is another one.
        """
        if key_id != self._signer.key_id:
            raise KeyNotFoundError("the gateway takes identities that it has signed itself, and no grants")
        return IssuerKey(self._signer.public_key, "", frozenset(), is_edge=True)

    async def start(self) -> None:
        """Opens the store, and announces the key: before the first call is let in.

        Raises:
            SetupError: The store cannot be used.
        """
        await self._store.open()
        await self._edges.announce(self._signer)
        self._announcing = asyncio.create_task(self._edges.keep(self._signer))

    async def stop(self) -> None:
        """Closes the store."""
        if self._announcing:
            await ended(self._announcing)
        await self._store.close()
