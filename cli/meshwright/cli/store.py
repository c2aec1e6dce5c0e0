"""`meshwright store ...`: what an admin does to a store before a mesh runs on it."""

import asyncio
import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.cli.authority import write
from meshwright.cli.key import advised
from meshwright.cli.output import show
from meshwright.cli.settings import CliSettings
from meshwright.cli.store_functions import ADVICE, prune
from meshwright.cli.store_keys import rewrap
from meshwright.core.api_key import LIBRARY as KEY_LIBRARY
from meshwright.core.errors import SetupError
from meshwright.core.public_url import public_url
from meshwright.core.store import Store
from meshwright.core.store_user import ADMIN, RIGHTS, acl_lines, user_of
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY

app = typer.Typer(no_args_is_help=True, help="Prepares a store for production.")
app.command()(prune)
app.command()(rewrap)
PASSWORD = re.compile(r"[A-Za-z0-9_-]{32,128}")


@app.command()
def install() -> None:
    """Loads this version's functions into the store, and writes MESHWRIGHT_PARTITIONS where it is new.

    The address is MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL. Functions of other versions stay, so that
    processes of two versions run side by side; `meshwright store prune` deletes those that nobody uses any more.
    """
    settings = CliSettings.load()
    url = settings.store_admin_url or settings.store_url
    libraries = (JOURNAL_LIBRARY, REGISTRY_LIBRARY, KEY_LIBRARY)

    async def work() -> int:
        store = Store(url, *libraries)
        try:
            with advised(ADVICE):
                await store.open(settings.partitions)
        finally:
            await store.close()
        return store.partitions

    partitions = asyncio.run(work())
    for library in libraries:
        show(f"{public_url(url)} holds {library.name}")
    show(f"{public_url(url)} has {partitions} partition(s)")


@app.command()
def acl(
    passwords: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of one password file a user; those that are missing are made")
    ],
) -> None:
    """Prints an ACL file for the store: a user for each role, an admin, and nobody else.

    Passwords stand in DIR/USER.password, for you alone; the lines hold their SHA-256.
    """
    users = [ADMIN, *map(user_of, RIGHTS)]
    for line in acl_lines({user: password(passwords, user) for user in users}):
        show(line)


def password(folder: Path, user: str) -> str:
    """Reads a user's password; makes one where there is none.

    Raises:
        SetupError: The folder cannot be used, or the file holds something else.
    """
    path = folder / f"{user}.password"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(path, secrets.token_urlsafe(32).encode(), is_new=True)
        found = path.read_bytes()[:200].decode(errors="replace").strip()
    except OSError as error:
        raise SetupError(f"{path} cannot be used: {error.strerror}") from None
    if not PASSWORD.fullmatch(found):
        raise SetupError(f"{path} holds no password of 32 to 128 letters, digits, hyphens and underscores")
    return found
