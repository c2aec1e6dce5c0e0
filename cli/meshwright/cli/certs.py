"""`meshwright certs`: an authority and certificates for development."""

import re
from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.authority import Authority, Wanted, host_name
from meshwright.cli.output import show_table
from meshwright.core.errors import SetupError
from meshwright.core.role import Role
from meshwright.core.tls import CERTIFICATE

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
LOCAL = ("localhost", "127.0.0.1", "::1")
MOST_HOSTS = 100


def certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the authority; each role gets one below it")],
    role: Annotated[list[Role] | None, typer.Option(help="Role; may be repeated  [default: all of them]")] = None,
    name: Annotated[str, typer.Option(help="Name within the one role, an agent's for example")] = "",
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name or address besides the role's own; may be repeated  [default: this machine]"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long certificates are good")] = 90,
    renew: Annotated[bool, typer.Option("--renew", help="Write new keys and certificates for those that are there")] = (
        False
    ),
) -> None:
    """Makes a development authority, once, and certificates for mTLS inside the mesh (MESHWRIGHT_TLS_DIR).

    What is there is left as it is; --renew writes it anew under the same authority, and running processes take it up.
    """
    asked = wanted(role or list(Role), name, host or LOCAL)
    authority = Authority.make(folder)
    there = {one.folder: one for one in authority.wanted()}
    if renew:
        named = {one.folder for one in asked} if role else set(there)
        todo = [one for one in there.values() if one.folder in named]
        if not todo:
            raise SetupError(f"{folder} holds no such certificate to renew: make it without --renew")
    else:
        todo = [one for one in asked if one.folder not in there]
    rows = [("authority", str(folder), f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}", "")]
    rows += [(one.uri, str(folder / one.folder), f"{authority.issue(one, days):%Y-%m-%d}", "new") for one in todo]
    kept = [one for one in asked if not renew and one.folder in there]
    rows += [(one.uri, str(folder / one.folder), expiry(folder / one.folder), "there already") for one in kept]
    show_table(("WHO", "FOLDER", "EXPIRES", ""), rows)


def wanted(roles: list[Role], name: str, hosts: list[str] | tuple[str, ...]) -> list[Wanted]:
    """Says which certificates are asked for.

    Raises:
        SetupError: A name or a host is none, or one name is to stand for several roles.
    """
    if name and (len(roles) != 1 or not NAME.fullmatch(name)):
        raise SetupError(f"--name {name!r}: write lower-case letters, digits, dots and hyphens, and name one --role")
    if len(hosts) > MOST_HOSTS:
        raise SetupError(f"more than {MOST_HOSTS} hosts: make several certificates with --name")
    for host in hosts:
        host_name(host)
    return [Wanted(role, name, tuple(hosts)) for role in dict.fromkeys(roles)]


def expiry(folder: Path) -> str:
    """Says when the certificate in a folder expires."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"
