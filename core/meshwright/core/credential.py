"""Credentials: what callers from outside have shown at the edge, and how long that lets them stay."""

from dataclasses import dataclass

from meshwright.core.errors import KeyExpiredError, KeyRevokedError, MeshError, TokenExpiredError

GOES_ON = "this call ends, its task goes on: watch it with another one after the last sequence"


@dataclass(frozen=True, slots=True)
class Credential:
    """A key or a token; not the secret.

    Attributes:
        key_id: Of an API key; empty: it is a token.
        ends: When it ends by itself, in milliseconds since 1970; 0: it does not.
    """

    key_id: str = ""
    ends: int = 0

    def is_over(self, now_ms: float) -> bool:
        """Whether it has ended by itself."""
        return 0 < self.ends <= now_ms

    def expired(self) -> MeshError:
        """Says to whom it has opened a call that it has ended by itself."""
        if self.key_id:
            return KeyExpiredError(f"the API key {self.key_id} has expired: {GOES_ON}")
        return TokenExpiredError(f"the token has expired: {GOES_ON}")

    def revoked(self) -> MeshError:
        """Says to whom it has opened a call that it was revoked."""
        return KeyRevokedError(f"the API key {self.key_id} was revoked: {GOES_ON}")
