"""Identities: who calls from outside, signed by the edge that has checked it, carried as `x-mesh-identity-bin`.

A key of an edge signs identities and nothing else, as an instance's key signs grants and nothing else.
"""

import time
from collections.abc import Collection

from meshwright.core.credential import Credential
from meshwright.core.errors import IdentityInvalidError, InvalidRequestError
from meshwright.core.grant import Signer
from meshwright.core.scope import SCOPE
from meshwright.core.signed_token import CLOCKS_S, IssuerKey, Signed, TokenVerifier
from meshwright.gen.agents.v1.identity_pb2 import Identity, SignedIdentity

IDENTITY_KEY = "x-mesh-identity-bin"
LIFE_S = 120
"""How long an identity is valid; it travels with one call, and is looked at when the call arrives."""
MOST_NAME_CHARS = 256
MOST_SCOPES, MOST_SCOPES_CHARS = 64, 4_096
UNENDING = Credential()


def sign(
    signer: Signer, tenant: str, principal: str, scopes: Collection[str], credential: Credential = UNENDING
) -> bytes:
    """Returns the serialized SignedIdentity of a caller, valid for `LIFE_S` from now.

    Args:
        signer: Of the edge.
        tenant: In whose name the caller acts.
        principal: The caller.
        scopes: What it may do.
        credential: What it has shown: streams that it opens end with that.
    """
    identity = Identity(tenant=tenant, principal=principal, scopes=sorted(scopes), key_id=credential.key_id)
    identity.expire_time.FromSeconds(int(time.time()) + LIFE_S)
    if credential.ends:
        identity.credential_end_time.FromMilliseconds(credential.ends)
    payload = identity.SerializeToString(deterministic=True)
    signed = SignedIdentity(identity=payload, signature=signer.signature(payload), key_id=signer.key_id)
    return signed.SerializeToString(deterministic=True)


def credential_of(identity: Identity) -> Credential:
    """Returns what a caller has shown at the edge."""
    return Credential(identity.key_id, identity.credential_end_time.ToMilliseconds())


class IdentityVerifier(TokenVerifier[Identity]):
    """Checks identities against the keys that edges have announced."""

    error = IdentityInvalidError
    name = "identity"
    issuer = "an edge"
    renewal = "the edge signs one for every call"
    life_s = LIFE_S + CLOCKS_S

    def read(self, token: bytes) -> Signed[Identity]:
        """Takes a SignedIdentity apart."""
        signed = SignedIdentity.FromString(token)
        return Signed(Identity.FromString(signed.identity), signed.identity, signed.signature, signed.key_id)

    def check(self, key: IssuerKey, content: Identity) -> None:
        """Takes the word of edges alone."""
        if not (key.is_edge and content.tenant and content.principal):
            raise IdentityInvalidError("the identity was signed by somebody who is no edge, or names nobody")


def checked_name(field: str, value: str) -> str:
    """Returns the name of a tenant or a principal.

    Raises:
        InvalidRequestError: It is empty, too long, or has characters that nobody sees.
    """
    if not (0 < len(value) <= MOST_NAME_CHARS and value.isprintable() and value == value.strip()):
        problem = f"must have 1..{MOST_NAME_CHARS} characters that can be seen, and no space around them"
        raise InvalidRequestError(f"{field} {problem}", fields={field: problem})
    return value


def checked_scopes(scopes: Collection[str]) -> frozenset[str]:
    """Returns the scopes of a caller.

    Raises:
        InvalidRequestError: One of them is none, or they are too many.
    """
    wrong = [scope for scope in scopes if not SCOPE.fullmatch(scope)]
    if wrong:
        raise InvalidRequestError(f"{wrong[0][:200]!r} is no scope", fields={"scopes": "are words like tasks:read"})
    if len(scopes) > MOST_SCOPES or sum(map(len, scopes)) > MOST_SCOPES_CHARS:
        problem = f"are at most {MOST_SCOPES}, with {MOST_SCOPES_CHARS} characters in all"
        raise InvalidRequestError(f"scopes {problem}", fields={"scopes": problem})
    return frozenset(scopes)
