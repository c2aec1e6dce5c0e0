"""What a mesh lacks: things that are broken anywhere, and things that strangers must not meet."""

import datetime as dt
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.agents.settings import AgentSettings
from meshwright.cli.authority import AUTHORITY_NAME
from meshwright.cli.settings import CliSettings
from meshwright.cli.stores import Stores
from meshwright.core.errors import MeshError, SetupError, StoreDeniedError
from meshwright.core.public_url import public_url
from meshwright.core.server import is_loopback
from meshwright.core.settings import misspelled
from meshwright.core.store import INSTALL, MESH, Store, partition_key
from meshwright.core.tls import KEY, read_pair
from meshwright.gateway.authentication import check_settings
from meshwright.gateway.hosts import unreachable
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.tls import check_transport
from meshwright.registry.settings import RegistrySettings
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY

EXPIRES_SOON = dt.timedelta(days=14)
HERE = "so this looks at this shell's default, {place}, and not at a mesh that runs elsewhere"
ELSEWHERE = "a mesh is looked at by `meshwright doctor --production URL`, or by this command in the gateway's pod"
STORE_OF_DEV = "set MESHWRIGHT_STORE_URL, or name the folder of a `meshwright dev` with --data"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to be done.

    Attributes:
        about: What it is about.
        what: What is wrong.
        todo: What to do.
        is_unseen: Whether it could not be looked at; it may be as it should be.
    """

    about: str
    what: str
    todo: str
    is_unseen: bool = False


async def broken(settings: GatewaySettings, stores: Stores) -> list[Finding]:
    """Lists what would keep processes from starting with these settings, or callers out."""
    found = [*of_environment(settings)]
    try:
        check_settings(settings)
    except SetupError as error:
        found.append(Finding("edge", error.message, "the gateway does not start"))
    try:
        check_transport(settings)
    except SetupError as error:
        found.append(Finding("TLS", error.message, "the process that needs them does not start"))
    try:
        async with stores.opened(settings.store_url) as store:
            found += [finding async for finding in of_installation(store, settings.partitions)]
    except MeshError as error:
        named = "" if is_told(settings) else f": {STORE_OF_DEV}"
        found.append(Finding("store", error.message, f"no process that needs it starts{named}"))
    return found


def is_told(settings: GatewaySettings) -> bool:
    """Whether the environment says which store the mesh has: then it is that of one of its processes."""
    return "store_url" in settings.model_fields_set


def of_default(settings: GatewaySettings) -> Iterator[Finding]:
    """Says where it looks, if nobody has told it."""
    if not is_told(settings):
        where = HERE.format(place=public_url(settings.store_url))
        yield Finding("store", f"MESHWRIGHT_STORE_URL is not set, {where}", ELSEWHERE, is_unseen=True)


def of_environment(settings: GatewaySettings) -> Iterator[Finding]:
    """Finds variables that nobody reads, and an edge that nobody reaches."""
    for name, meant in misspelled(GatewaySettings, AgentSettings, RegistrySettings, CliSettings).items():
        yield Finding("settings", f"nobody reads {name}", f"{meant} may be meant")
    if why := unreachable(settings):
        yield Finding("edge", why, "name the hosts that clients call by MESHWRIGHT_ALLOWED_HOSTS")


async def of_installation(store: Store, partitions: int) -> AsyncIterator[Finding]:
    """Finds what processes miss in a store that they may not write into a new one themselves.

    Raises:
        MeshError: It does not answer, or not what is asked.
    """
    (written,) = await store.run(("GET", partition_key(MESH, "partitions")))
    if written and int(written) != partitions:
        yield Finding(
            "store",
            f"it was installed with MESHWRIGHT_PARTITIONS={int(written)}, not {partitions}",
            "set that for every process, and for `meshwright store install`",
        )
    if await user_of_many_rights(store):
        return
    libraries = (JOURNAL_LIBRARY, REGISTRY_LIBRARY)
    held = await store.run(*(("FUNCTION", "LIST", "LIBRARYNAME", library.name) for library in libraries))
    for library in (library for library, found in zip(libraries, held, strict=True) if not found):
        yield Finding("store", f"it does not hold {library.name}", INSTALL)


async def user_of_many_rights(store: Store) -> str:
    """Names the store's user where it may do more than a process has to; empty: it may not even ask who it is."""
    try:
        (name,) = await store.run(("ACL", "WHOAMI"))
    except StoreDeniedError:
        return ""
    return str(name.decode())


async def missing(settings: GatewaySettings, stores: Stores, admin_url: str) -> list[Finding]:
    """Lists what production needs and these settings lack.

    Args:
        settings: As the gateway's process reads them; the other processes of a mesh have the same.
        stores: Opens the store.
        admin_url: The store's address for an admin, who sees how it is configured; empty: there is none.
    """
    found = [*of_settings(settings), *of_certificates(settings)]
    try:
        found += [finding async for finding in of_store(settings, stores, admin_url)]
    except MeshError as error:
        found.append(Finding("store", error.message, "mend that, and look again"))
    return found


def of_settings(settings: GatewaySettings) -> Iterator[Finding]:
    """Finds settings that are meant for one machine."""
    if settings.auth == "none":
        yield Finding("identity", "nobody is asked who is calling", "set MESHWRIGHT_AUTH to keys or jwt")
    if not settings.tls_dir:
        yield Finding("services", "they speak plain text", "set MESHWRIGHT_TLS_DIR for every process (docs/tls.md)")
    if not settings.edge_tls_dir:
        yield Finding("edge", "clients speak plain text to it", "set MESHWRIGHT_EDGE_TLS_DIR")
    if settings.insecure:
        yield Finding("services", "MESHWRIGHT_INSECURE lets plain text leave the machine", "unset it")
    if settings.reflection:
        yield Finding("services", "they tell their contract to whoever connects", "unset MESHWRIGHT_REFLECTION")
    if "debug" in settings.log_level.lower():
        yield Finding("logs", "they hold everything", "set MESHWRIGHT_LOG_LEVEL=info")
    if settings.drain_s < 1:
        yield Finding("restarts", "calls in flight are cut", "set MESHWRIGHT_DRAIN_S to 10 or more")


def of_certificates(settings: GatewaySettings) -> Iterator[Finding]:
    """Finds certificates that end soon, are of the development authority, or whose key others read."""
    folders = {settings.tls_dir, settings.envoy_tls_dir, settings.edge_tls_dir} - {""}
    for folder in sorted(folders):
        try:
            _, _, certificate = read_pair(Path(folder), "")
        except SetupError:  # told as broken
            continue
        left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
        if left < EXPIRES_SOON:
            yield Finding(folder, f"its certificate expires in {left.days} days", "renew it (docs/tls.md)")
        if is_of_development(certificate):
            yield Finding(
                folder, "its certificate is of a development authority", "use one that keeps its key to itself"
            )
        if (Path(folder) / KEY).stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield Finding(folder, f"others may read or write {KEY}", f"chmod o-rwx,g-w {Path(folder) / KEY}")


def is_of_development(certificate: x509.Certificate) -> bool:
    """Whether `meshwright certs` made the authority behind a certificate."""
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any(name.value == AUTHORITY_NAME for name in names)


async def of_store(settings: GatewaySettings, stores: Stores, admin_url: str) -> AsyncIterator[Finding]:
    """Finds how a store may be read on its way, by whom it may be changed, and what it may lose.

    Raises:
        MeshError: It does not answer, or not what is asked.
    """
    if is_plain_abroad(settings.store_url):
        yield Finding("store", f"plain text to {public_url(settings.store_url)}", "write rediss:// in its address")
    async with stores.opened(settings.store_url) as store:
        if name := await user_of_many_rights(store):
            yield Finding("store", f"its user {name} may do everything", "see `meshwright store acl`")
        (memory,) = await store.run(("INFO", "memory"))
        if not memory.get("maxmemory"):
            yield Finding("store", "it takes memory without bound", "set maxmemory")
    async with stores.opened(admin_url or settings.store_url) as store:
        try:
            (log,) = await store.run(("CONFIG", "GET", "auto-aof-rewrite-percentage"))
            (ids,) = await store.run(("HKEYS", partition_key(MESH, "seal")))
        except StoreDeniedError:
            what = "whether appendfsync is always, when the log is rewritten, which content keys are in use"
            hint = "its user may not tell: set MESHWRIGHT_STORE_ADMIN_URL for this command"
            yield Finding("store", what, hint, is_unseen=True)
            return
        if int(next(iter(log.values()))) == 0:
            what = "its log is never rewritten, so what was deleted stays in it"
            yield Finding(
                "store", what, "set auto-aof-rewrite-percentage 100, and run BGREWRITEAOF (docs/encryption.md)"
            )
        if len(ids) > 1:
            named = ", ".join(sorted(key_id.decode() for key_id in ids))
            todo = "run `meshwright store rewrap`, then take the old ones out (docs/encryption.md)"
            yield Finding("content keys", f"each of {named} may still be needed", todo)


def is_plain_abroad(url: str) -> bool:
    """Whether a store's address leads off this machine in plain text."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "redis" and not is_loopback(parts.hostname or "localhost")
    except ValueError:  # no address at all, which is told as broken
        return False
