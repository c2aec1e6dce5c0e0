"""Secrets: what docs/production.md says that they hold, made as the commands `certs` and `store acl` make it."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.manifests import Manifests, Thing
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.store import password
from meshwright.core.errors import SetupError
from meshwright.core.role import TRUST_DOMAIN, Role, names_of
from meshwright.core.store_user import ADMIN, RIGHTS, acl_lines, user_of
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY

DAYS = 1
MESH, PUBLIC = "mesh", "public"
"""Issuers, each of them a folder."""
STORE_URL = "rediss://{user}:{password}@store:6379/0?ssl_ca_certs=/certificates/ca.pem"
KEYS = {"tls.crt": CERTIFICATE, "tls.key": KEY, "ca.crt": AUTHORITY}


class Secrets:
    """Makes the secrets that the manifests ask for.

    Args:
        folder: Takes authorities and passwords.
        manifests: Whose certificates are made.
        addresses: A certificate names the address of each of its hosts beside it.
    """

    def __init__(self, folder: Path, manifests: Manifests, addresses: Addresses) -> None:
        self._folder = folder
        self._addresses = addresses
        users = {user: password(folder / "passwords", user) for user in (ADMIN, *map(user_of, RIGHTS))}
        self._held: dict[str, dict[str, bytes]] = {
            "store-users": {"users.acl": "".join(f"{line}\n" for line in acl_lines(users)).encode()},
            "store-urls": {
                user.removeprefix("mw-"): STORE_URL.format(user=user, password=secret).encode()
                for user, secret in users.items()
            },
            "content-keys": {"content.keys": b"k1 " + base64.b64encode(os.urandom(32)) + b"\n"},
        }
        for certificate in manifests.of_kind("Certificate"):
            spec = certificate["spec"]
            if not spec.get("isCA"):
                self._held[spec["secretName"]] = self._issued(spec)

    @property
    def public_authority(self) -> Path:
        """File of the authority of the edge's certificate."""
        return self._folder / PUBLIC / AUTHORITY

    def of(self, name: str) -> dict[str, bytes]:
        """Returns what a secret holds, by key.

        Raises:
            SetupError: Nobody makes it.
        """
        if name not in self._held:
            raise SetupError(f"the manifests name the secret {name}, which nobody makes: see docs/production.md")
        return self._held[name]

    def store_url(self, role: str) -> str:
        """Returns the store's address for a role, as a process on this machine uses it."""
        told = self._addresses.resolved(self._held["store-urls"][role].decode(), "")
        return told.replace("/certificates/ca.pem", str(self._folder / MESH / AUTHORITY))

    def _issued(self, spec: Thing) -> dict[str, bytes]:
        """Makes a certificate as a `Certificate` of cert-manager asks for it.

        One without a role is for hosts alone; the command makes none without, so it has that of the command line.
        """
        authority = Authority.make(self._folder / (PUBLIC if spec["issuerRef"]["name"] == PUBLIC else MESH))
        uri = next(iter(spec.get("uris", ())), f"{TRUST_DOMAIN}{Role.CLI}/{spec['secretName']}")
        role, _, name = uri.removeprefix(TRUST_DOMAIN).partition("/")
        wanted = Wanted(Role(role), name, self._hosts(spec["dnsNames"], names_of(Role(role), name)))
        authority.issue(wanted, DAYS)
        made = self._folder / (PUBLIC if spec["issuerRef"]["name"] == PUBLIC else MESH) / wanted.folder
        return {key: (made / file).read_bytes() for key, file in KEYS.items()}

    def _hosts(self, names: Sequence[str], known: Sequence[str]) -> list[str]:
        hosts = [name for name in names if name not in known]
        return [*hosts, *(self._addresses.of(host) for host in hosts)]
