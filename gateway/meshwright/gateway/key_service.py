"""KeyService: API keys of the caller's tenant."""

import structlog

from meshwright.core.api_key import LONGEST_S, ApiKey, ApiKeys
from meshwright.core.errors import ApiKeyNotFoundError, InvalidRequestError, ScopeMissingError
from meshwright.core.interceptors import CALLER, Context
from meshwright.core.scope import missing
from meshwright.gen.gateway.v1 import key_service_pb2 as pb
from meshwright.gen.gateway.v1.key_service_pb2_grpc import KeyServiceServicer

log = structlog.get_logger("keys")


class KeyService(KeyServiceServicer):
    """Makes, lists and revokes keys of one tenant: that of whoever calls."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        caller = CALLER.get()
        if lacking := missing(caller.scopes, request.scopes):
            told = f"nobody gives what it has not: {' and '.join(lacking[:5])}"
            raise ScopeMissingError(told, metadata={"scopes": " ".join(lacking[:5])})
        life_s = life_of(request)
        key, made = await self._keys.create(
            request.name,
            request.scopes,
            tenant=caller.tenant,
            principal=request.principal,
            life_s=life_s,
            by=caller.principal,
        )
        log.info("key_created", key_id=made.key_id, tenant=made.tenant, by=caller.principal)
        return pb.CreateKeyResponse(key=key, api_key=shown(made))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        tenant = CALLER.get().tenant
        return pb.ListKeysResponse(keys=[shown(one) for one in await self._keys.all() if one.tenant == tenant])

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.ApiKey:
        caller = CALLER.get()
        known = await self._keys.find(request.key_id)
        if known is None or known.tenant != caller.tenant:
            raise ApiKeyNotFoundError(f"{caller.tenant} has no API key {request.key_id[:64]!r}: ListKeys shows which")
        gone = await self._keys.revoke(request.key_id, by=caller.principal)
        log.info("key_revoked", key_id=gone.key_id, tenant=gone.tenant, by=caller.principal)
        return shown(gone)


def life_of(request: pb.CreateKeyRequest) -> int:
    """Returns after how many seconds a key is to end; 0: it does not.

    Raises:
        InvalidRequestError: It is none, or too long.
    """
    if not request.HasField("life"):
        return 0
    if not 1 <= request.life.seconds <= LONGEST_S:
        raise InvalidRequestError("life is out of range", fields={"life": f"must be 1..{LONGEST_S} s, or unset"})
    return request.life.seconds


def shown(key: ApiKey) -> pb.ApiKey:
    """Writes what is known of a key."""
    message = pb.ApiKey(
        key_id=key.key_id, name=key.name, tenant=key.tenant, principal=key.principal, scopes=sorted(key.scopes)
    )
    message.create_time.FromMilliseconds(key.created)
    for time, moment in ((message.expire_time, key.expires), (message.revoke_time, key.revoked)):
        if moment:
            time.FromMilliseconds(moment)
    if key.used:
        message.use_time.FromMilliseconds(key.used)
    return message
