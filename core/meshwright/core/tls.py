"""Certificates of a process of the mesh: read from a folder, read anew when its files change, checked as they are read.

The folder holds `cert.pem` (with intermediates), `key.pem` and `ca.pem`, as `meshwright certs` and secret stores write
them.
"""

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from cryptography.exceptions import UnsupportedAlgorithm

from meshwright.core.errors import MeshError, SetupError
from meshwright.core.role import TRUST_DOMAIN, Role, bearer_in
from meshwright.core.small_file import state_of
from meshwright.core.telemetry import CERTIFICATE_EXPIRES

if TYPE_CHECKING:
    from cryptography import x509

CERTIFICATE, KEY, AUTHORITY = "cert.pem", "key.pem", "ca.pem"
MESH_ADVICE = "`meshwright certs` makes one"
MOST_BYTES = 2**20
"""Of a file; a bundle of all public authorities has a quarter of it."""

log = structlog.get_logger("tls")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process shows, and what it trusts, in PEM; an empty name is that of any process of the role."""

    chain: bytes
    key: bytes
    authority: bytes
    role: Role
    name: str
    expires: dt.datetime

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """Returns it as a server uses it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.authority)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns it as a channel uses it."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.chain)


class Certificates:
    """The certificates in a folder, as they are now.

    Args:
        folder: Of `cert.pem`, `key.pem` and `ca.pem`.

    Raises:
        SetupError: They cannot be used; says which file, and why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._state()
        self._identity = read(folder)
        CERTIFICATE_EXPIRES.set(self._identity.expires.timestamp())

    def current(self) -> Identity:
        """Returns what the files hold; as long as they do not fit together, what they held before."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._identity = read(self._folder)
            except MeshError as error:
                log.warning("certificates_kept", folder=str(self._folder), error=error.message)
            else:
                CERTIFICATE_EXPIRES.set(self._identity.expires.timestamp())
                log.info("certificates_read", folder=str(self._folder), expires=self._identity.expires.isoformat())
        return self._identity

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(state_of(self._folder / name) for name in (CERTIFICATE, KEY, AUTHORITY))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials of a server: each new connection is served with the files of that moment.

        Clients show a certificate of the same authority.
        """
        served = self.current()

        def fetch() -> Any:  # None: nothing has changed
            nonlocal served
            identity = self.current()
            if identity is served:
                return None
            served = identity
            return identity.server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            served.server_configuration(), fetch, require_client_authentication=True
        )


def certificates_in(folder: str) -> Certificates | None:
    """Reads the certificates that `MESHWRIGHT_TLS_DIR` names; None: it names none."""
    return Certificates(Path(folder)) if folder else None


def check_bearer(folder: str, *roles: Role, name: str = "") -> None:
    """Holds a process's own certificate against what it is; one without a name is of any process of its role.

    Args:
        folder: As `MESHWRIGHT_TLS_DIR` names it; empty: none.
        roles: Those whose certificate is good for the process, its own first.
        name: What the process is called; empty: certificates with any name are good.

    Raises:
        SetupError: The certificate is of another role, or bears another name, or cannot be used.
    """
    if not folder:
        return
    found, file = read(Path(folder)), Path(folder) / CERTIFICATE
    if found.role not in roles:
        raise SetupError(f"{file} is a certificate of the role {found.role}: this process needs {roles[0]}")
    if name and found.name not in ("", name):
        raise SetupError(f"{file} is the certificate of {found.name}: {name} needs one of its own")


def read(folder: Path) -> Identity:
    """Reads a folder's certificates and holds them against each other.

    Raises:
        SetupError: A file is missing or no PEM, the key is another certificate's, or the certificate has expired or
            names no role.
    """
    chain, key, certificate = read_pair(folder, MESH_ADVICE)
    authority = read_authorities(folder / AUTHORITY, MESH_ADVICE)
    bearer = bearer_in(uris(certificate))
    if bearer is None:
        raise SetupError(f"{folder / CERTIFICATE} names no role: it needs one URI SAN, {TRUST_DOMAIN}ROLE[/NAME]")
    return Identity(chain, key, authority, *bearer, certificate.not_valid_after_utc)


def read_pair(folder: Path, advice: str) -> "tuple[bytes, bytes, x509.Certificate]":
    """Reads a folder's certificate and its key: both in PEM, and the certificate.

    Args:
        folder: Of `cert.pem` and `key.pem`.
        advice: What is said to do where one of them cannot be read.

    Raises:
        SetupError: One is missing or no PEM, they do not belong together, or the certificate has expired.
    """
    from cryptography.hazmat.primitives import serialization  # only who has certificates waits for it

    chain, key = content(folder / CERTIFICATE, advice), content(folder / KEY, advice)
    certificate = parsed(folder / CERTIFICATE, chain)[0]
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SetupError(f"{folder / KEY} is no private key in PEM without a password: write one") from None
    try:
        is_pair = public == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        is_pair = False
    if not is_pair:
        raise SetupError(f"{folder / KEY} is not the key of {folder / CERTIFICATE}: write both anew")
    expires = certificate.not_valid_after_utc
    if expires <= dt.datetime.now(dt.UTC):
        raise SetupError(f"{folder / CERTIFICATE} expired on {expires:%Y-%m-%d %H:%M} UTC: renew it")
    return chain, key, certificate


def read_authorities(path: Path, advice: str) -> bytes:
    """Reads a file of authorities.

    Args:
        path: Of the file, in PEM.
        advice: What is said to do where it cannot be read.

    Raises:
        SetupError: There is none, or it holds no certificate.
    """
    found = content(path, advice)
    parsed(path, found)
    return found


def content(path: Path, advice: str) -> bytes:
    """Reads a file of a bounded size; a pipe is not waited for.

    Raises:
        SetupError: There is none, or it is larger.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = file.read(MOST_BYTES + 1) or b""
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; {advice}") from None
    if len(found) > MOST_BYTES:
        raise SetupError(f"{path} holds more than {MOST_BYTES} bytes: name a file with nothing but certificates")
    return found


def parsed(path: Path, pem: bytes) -> "list[x509.Certificate]":
    """Reads certificates.

    Raises:
        SetupError: There is none.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise SetupError(f"{path} holds no certificate in PEM: write one") from None


def uris(certificate: "x509.Certificate") -> list[str]:
    """Lists the URIs that a certificate names its holder by."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
