"""Claims: who a token says is calling, once Envoy has verified it. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwright.core.credential import Credential
from meshwright.core.errors import InvalidRequestError, TokenExpiredError, TokenInvalidError, UnavailableError
from meshwright.core.identity import checked_name, checked_scopes
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gateway.authentication import FAILURE, PAYLOAD

LATEST_S = 250_000_000_000
"""In the year 9892: a later end of a token is as good as none, and is no time that could be written down."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is calling, what that one may do, and what it has shown."""

    tenant: str
    principal: str
    scopes: frozenset[str]
    credential: Credential


@dataclass(frozen=True, slots=True)
class Claims:
    """Reads tokens.

    Attributes:
        tenant_claim: Claim that names the tenant.
        default_tenant: Of tokens without it; empty: they are refused.
    """

    tenant_claim: str
    default_tenant: str

    def holder(self, found: Mapping[str, Any]) -> Holder:
        """Returns who a token says is calling.

        Args:
            found: What Envoy has found out about the token.

        Raises:
            TokenExpiredError: Its time is over.
            TokenInvalidError: It is not good, or does not say who its holder is.
            UnavailableError: The issuer's keys cannot be read.
        """
        payload = found.get(PAYLOAD)
        if not isinstance(payload, Mapping):
            raise failure(found.get(FAILURE))
        try:
            return Holder(
                checked_name(self.tenant_claim, text_of(payload, self.tenant_claim, self.default_tenant)),
                checked_name("sub", text_of(payload, "sub")),
                checked_scopes(scopes_of(payload)),
                Credential(ends=end_of(payload)),
            )
        except InvalidRequestError as error:
            raise TokenInvalidError(f"the token does not say who is calling: {error.message}") from None


def text_of(payload: Mapping[str, Any], claim: str, default: str = "") -> str:
    """Returns a claim that is a text, the default where it is missing; empty: it is something else."""
    found = payload.get(claim, default)
    return found if isinstance(found, str) else ""


def end_of(payload: Mapping[str, Any]) -> int:
    """Returns when Envoy takes a token no longer, in milliseconds since 1970.

    Raises:
        InvalidRequestError: It does not say.
    """
    found = payload.get("exp")
    if not isinstance(found, int | float) or isinstance(found, bool) or math.isnan(found):
        raise InvalidRequestError("exp is no time")
    return (int(min(max(found, 0), LATEST_S)) + CLOCKS_S) * 1000


def scopes_of(payload: Mapping[str, Any]) -> list[str]:
    """Returns the scopes in `scope` or `scp`, each a text of words or a list of them."""
    found = payload.get("scope", payload.get("scp", ""))
    if isinstance(found, str):
        return found.split()
    return [str(one) for one in found] if isinstance(found, list) else []


WRONG = {
    "Jwt issuer is not configured": "its issuer (iss) is another one",
    "Audiences in Jwt are not allowed": "it is meant for another audience (aud)",
    "Jwt not yet valid": "it is not valid yet (nbf)",
    "Jwt verification fails": "its signature is not the issuer's, or it has no end (exp)",
    "Jwks doesn't have key to match kid or alg from Jwt": "its key (kid, alg) is none of the issuer's",
}
"""What is wrong with a token, by Envoy's words."""


def failure(found: object) -> TokenExpiredError | TokenInvalidError | UnavailableError:
    """Says why Envoy did not take a token, by the words in which it says so."""
    said = str(found.get("message", "")) if isinstance(found, Mapping) else ""
    if said == "Jwt is expired":
        return TokenExpiredError("the token has expired: get another one from its issuer")
    if said.startswith("Jwks remote fetch"):
        return UnavailableError("the issuer's keys cannot be read at the moment: try again", retry_after_s=1)
    return TokenInvalidError(f"the token is not good for this mesh: {WRONG.get(said, 'it cannot be read')}")
