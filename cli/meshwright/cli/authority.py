"""An authority for development: certificates of the mesh's roles, each in the folder that a process reads."""

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwright.core.errors import SetupError
from meshwright.core.role import MESH_NAME, TRUST_DOMAIN, Role, names_of
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY

AUTHORITY_KEY = "ca-key.pem"
AUTHORITY_NAME = f"{MESH_NAME} development authority"
AUTHORITY_DAYS = 3650
SKEW = dt.timedelta(minutes=5)
"""Clocks of two machines may differ by so much."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate that is asked for: role, name within the role (or empty), hosts besides the role's own names."""

    role: Role
    name: str = ""
    hosts: Sequence[str] = ()

    @property
    def uri(self) -> str:
        """What it says its holder is."""
        return TRUST_DOMAIN + self.role + (f"/{self.name}" if self.name else "")

    @property
    def folder(self) -> str:
        """Names its folder."""
        return f"{self.role}-{self.name}" if self.name else str(self.role)


class Authority:
    """Signs certificates; its key lies beside them, which is for development alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key, self.certificate = self._opened()

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        """Opens a folder's authority; makes one where there is none, and never over one that is there.

        Raises:
            SetupError: The folder cannot be used, or holds half of an authority.
        """
        here = [(folder / name).exists() for name in (AUTHORITY, AUTHORITY_KEY)]
        try:
            if not any(here):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                _make_authority(folder)
            return cls(folder)
        except (OSError, ValueError, TypeError) as error:
            raise SetupError(f"{folder} holds no authority that can be read: {error}; name another folder") from None

    def _opened(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = serialization.load_pem_private_key((self.folder / AUTHORITY_KEY).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("its key is of another kind")
        return key, x509.load_pem_x509_certificate((self.folder / AUTHORITY).read_bytes())

    def issue(self, wanted: Wanted, days: float) -> dt.datetime:
        """Writes a key and a certificate into their folder, each replaced whole; returns when it expires.

        Args:
            wanted: For whom.
            days: How long it is good from now; negative: it is not any more.
        """
        place = self.folder / wanted.folder
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(wanted, key.public_key(), days)
        try:
            place.mkdir(exist_ok=True, mode=0o700)
            write(place / KEY, private_pem(key))
            write(place / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
            write(place / AUTHORITY, self.certificate.public_bytes(serialization.Encoding.PEM))
        except OSError as error:
            raise SetupError(f"{place} cannot be written: {error.strerror}") from None
        return certificate.not_valid_after_utc

    def _signed(self, wanted: Wanted, key: ec.EllipticCurvePublicKey, days: float) -> x509.Certificate:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(wanted.uri)]
        names += [x509.DNSName(name) for name in names_of(wanted.role, wanted.name)]
        names += [host_name(host) for host in wanted.hosts]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            started(wanted.folder, self.certificate.subject, key, days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def wanted(self) -> list[Wanted]:
        """Lists what has been issued into this folder, as the certificates say.

        Raises:
            SetupError: One of them cannot be read.
        """
        return [of_certificate(path) for path in sorted(self.folder.glob(f"*/{CERTIFICATE}"))]


def of_certificate(path: Path) -> Wanted:
    """Reads whose certificate a file is.

    Raises:
        SetupError: It cannot be read, or is none of the mesh.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        role, _, name = uri.removeprefix(TRUST_DOMAIN).partition("/")
        known = set(names_of(Role(role), name))
        hosts = [host for host in names.get_values_for_type(x509.DNSName) if host not in known]
        hosts += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        return Wanted(Role(role), name, hosts)
    except (OSError, ValueError, x509.ExtensionNotFound):
        raise SetupError(f"{path} is no certificate of the mesh: move it away") from None


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = subject(AUTHORITY_NAME)
    # fmt: off
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )
    # fmt: on
    certificate = (
        started(AUTHORITY_NAME, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write(folder / AUTHORITY_KEY, private_pem(key), is_new=True)
    write(folder / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM), is_new=True)


def started(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    """Begins a certificate with what all of them hold."""
    now = dt.datetime.now(dt.UTC)
    ends = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject(common_name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - SKEW)
        .not_valid_after(ends)
    )


def subject(common_name: str) -> x509.Name:
    """Spells a name as certificates hold it, at most 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def host_name(host: str) -> x509.GeneralName:
    """Spells a host as a certificate holds it.

    Raises:
        SetupError: It is neither an address nor a name.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise SetupError(f"{host!r} is no host name that a certificate can hold: write it in ASCII") from None


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Writes a key without a password: the file's mode is what protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(path: Path, content: bytes, *, is_new: bool = False) -> None:
    """Writes a file that only this user reads, whole or not at all.

    Args:
        path: What is replaced.
        content: All of it.
        is_new: Whether a file that is there is an error.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    if is_new:
        os.link(temporary, path)
        temporary.unlink()
    else:
        temporary.replace(path)
