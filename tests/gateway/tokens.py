"""An issuer of tokens: signs what a test asks for, and publishes its keys."""

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://issuer.example/", "mesh"


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class Issuer:
    """Signs with ES256."""

    def __init__(self, kid: str = "k1") -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        x, y = (b64(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y}
        return json.dumps({"keys": [key]}).encode()

    def token(self, *, head: dict[str, Any] | None = None, signature: bytes | None = None, **claims: Any) -> str:
        """Signs claims; None leaves one out."""
        now = int(time.time())
        whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "tenant": "acme", "iat": now, "exp": now + 300}
        whole = {name: value for name, value in (whole | claims).items() if value is not None}
        header = {"alg": "ES256", "typ": "JWT", "kid": self.kid} | (head or {})
        signed = ".".join(b64(json.dumps(part).encode()) for part in (header, whole))
        if signature is None:
            r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32) + s.to_bytes(32)
        return f"{signed}.{b64(signature)}"
