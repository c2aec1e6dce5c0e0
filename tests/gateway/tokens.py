"""An issuer of tokens: signs what a test asks for, and publishes its keys."""

import base64
import datetime as dt
import ipaddress
import json
import ssl
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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


class Authority:
    """Signs certificates of servers; its own stands in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, file.stem)])
        limits = x509.BasicConstraints(ca=True, path_length=0)
        signed = (
            self._begun(self._name, self._key).add_extension(limits, critical=True).sign(self._key, hashes.SHA256())
        )
        file.write_bytes(signed.public_bytes(Encoding.PEM))

    def _begun(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))

    def server_of(self, address: str, folder: Path) -> ssl.SSLContext:
        """Returns what a server at an address speaks TLS with."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        signed = self._begun(x509.Name([]), key).add_extension(names, critical=True).sign(self._key, hashes.SHA256())
        certificate, private = folder / "server.pem", folder / "server.key"
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, private)
        return context
