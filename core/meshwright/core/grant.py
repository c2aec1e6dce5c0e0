"""Grants: short-lived signed references to a task's authority, carried as `x-mesh-grant-bin`."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import DecodeError

from meshwright.core.errors import GrantInvalidError, KeyNotFoundError, PermissionDeniedError
from meshwright.gen.agents.v1.grant_pb2 import Grant, SignedGrant

METADATA_KEY = "x-mesh-grant-bin"
MAX_AGE_S = 300
MAX_DEPTH = 5
REGISTRY = "registry"
"""How the registry names itself in the grants of calls from outside of a task: no agent signs by that name."""
CALL = "call-"
"""What stands before the key of such a call where the grant names its task."""
KEPT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """An instance's public key and what its agent may grant; `agent_id` is empty for the registry."""

    public_key: bytes
    agent_id: str
    tools: frozenset[str]
    delegates: frozenset[str] = frozenset()
    is_edge: bool = False
    """It signs identities, and no grants."""


KeyLookup = Callable[[str], Awaitable[IssuerKey]]


class Signer:
    """Signs grants for one process; the key lives and dies with it."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._key = Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> bytes:
        """Raw public key, 32 bytes, to be announced."""
        return self._key.public_key().public_bytes_raw()

    def signature(self, payload: bytes) -> bytes:
        """Returns the signature of serialized data, 64 bytes."""
        return self._key.sign(payload)

    def sign(self, grant: Grant) -> bytes:
        """Returns the serialized SignedGrant; what is signed ends at most `MAX_AGE_S` from now."""
        bounded = Grant()
        bounded.CopyFrom(grant)
        latest = int(time.time()) + MAX_AGE_S
        if not grant.HasField("expire_time") or grant.expire_time.seconds > latest:
            bounded.expire_time.FromSeconds(latest)
        payload = bounded.SerializeToString(deterministic=True)
        signed = SignedGrant(grant=payload, signature=self.signature(payload), key_id=self.key_id)
        return signed.SerializeToString(deterministic=True)


class Verifier:
    """Checks grants against the issuers' announced keys, and remembers those it has checked."""

    def __init__(self, lookup: KeyLookup) -> None:
        self.lookup = lookup
        self._checked: dict[bytes, Grant] = {}

    async def verify(self, token: bytes) -> Grant:
        """Returns the grant in a token.

        Raises:
            GrantInvalidError: Forged, expired, or signed by nobody who is here.
        """
        grant = self._checked.get(token)
        if grant is None:
            grant = await self._check(token)
            while len(self._checked) >= KEPT_TOKENS:
                del self._checked[next(iter(self._checked))]
            self._checked[token] = grant
        if not 0 < grant.expire_time.seconds - time.time() <= MAX_AGE_S + 60:
            raise GrantInvalidError("the grant has expired: it is renewed at each claim of its task")
        return grant

    async def _check(self, token: bytes) -> Grant:
        try:
            signed = SignedGrant.FromString(token)
            grant = Grant.FromString(signed.grant)
        except DecodeError:
            raise GrantInvalidError("the grant cannot be read") from None
        try:
            issuer = await self.lookup(signed.key_id)
            Ed25519PublicKey.from_public_bytes(issuer.public_key).verify(signed.signature, signed.grant)
        except (InvalidSignature, KeyNotFoundError, ValueError):
            raise GrantInvalidError("the grant was not signed by an instance that is here") from None
        check_issuer(issuer, grant)
        return grant


def check_issuer(issuer: IssuerKey, grant: Grant) -> None:
    """Holds a grant against its issuer: an agent signs for itself alone, and for tools and agents on its own lists.

    Versions are not compared: a task keeps its pins when its agent moves on to another version of a tool.

    Raises:
        GrantInvalidError: The grant is another agent's, or the registry's, or wider than its issuer's list, or an edge
            signed it.
    """
    if issuer.is_edge:
        raise GrantInvalidError("an edge signed a grant: it signs identities alone")
    if not issuer.agent_id:
        return
    if issuer.agent_id != grant.agent_id or grant.agent_id == REGISTRY:
        raise GrantInvalidError(f"{issuer.agent_id} signed a grant for {grant.agent_id}")
    own = {selector.partition("@")[0] for selector in issuer.tools}
    wider = [pin for pin in grant.tools if pin.partition("@")[0] not in own]
    wider += [name for name in grant.delegates if name not in issuer.delegates]
    if wider:
        raise GrantInvalidError(f"{issuer.agent_id} signed a grant for {wider[0]}, which is not on its own list")


def check_tool(grant: Grant, pin: str) -> None:
    """Lets a tool call pass that the grant names (`name@version`); everything else is denied.

    Raises:
        PermissionDeniedError: The grant does not hold the tool.
    """
    if pin not in grant.tools:
        raise PermissionDeniedError(f"{grant.agent_id} holds no grant for {pin}: add the tool to the agent's list")


def is_call(grant: Grant) -> bool:
    """Whether a grant is of one call from outside of any task: the registry's, with no task behind it."""
    return grant.agent_id == REGISTRY and not grant.root_task_id


def approval_of(key: str, intent_digest: str) -> str:
    """Names a call that a person has allowed, as a grant holds it: this very call, not one that is like it.

    Args:
        key: Its idempotency key.
        intent_digest: Digest of tool, version and arguments.
    """
    return f"{key}:{intent_digest}"
