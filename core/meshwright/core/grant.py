"""Grants: short-lived signed references to a task's authority, carried as `x-mesh-grant-bin`."""

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshwright.core.errors import GrantInvalidError, PermissionDeniedError
from meshwright.core.signed_token import CLOCKS_S, IssuerKey, Signed, TokenVerifier
from meshwright.gen.agents.v1.grant_pb2 import Grant, SignedGrant

MAX_AGE_S = 300
MAX_DEPTH = 5
REGISTRY = "registry"
"""How the registry names itself in the grants of calls from outside of a task: no agent signs by that name."""
CALL = "call-"
"""What stands before the key of such a call where the grant names its task."""


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


class Verifier(TokenVerifier[Grant]):
    """Checks grants against the keys that instances have announced."""

    error = GrantInvalidError
    name = "grant"
    issuer = "an instance"
    renewal = "it is renewed at each claim of its task"
    life_s = MAX_AGE_S + CLOCKS_S

    def read(self, token: bytes) -> Signed[Grant]:
        """Takes a SignedGrant apart."""
        signed = SignedGrant.FromString(token)
        return Signed(Grant.FromString(signed.grant), signed.grant, signed.signature, signed.key_id)

    def check(self, key: IssuerKey, content: Grant) -> None:
        """Holds a grant against its issuer."""
        check_issuer(key, content)


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
