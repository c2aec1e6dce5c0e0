"""`meshwright store prune`: functions of versions that are gone leave the store."""

import asyncio
from typing import Annotated

import typer

from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.cli import libraries
from meshwright.cli.key import advised
from meshwright.cli.output import show
from meshwright.cli.settings import CliSettings
from meshwright.core.api_key import LIBRARY as KEY_LIBRARY
from meshwright.core.store import Store
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY

OURS = (JOURNAL_LIBRARY, REGISTRY_LIBRARY, KEY_LIBRARY)
MOST_NAMED = 5
ADVICE = "name another store with MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL"


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing")] = False,
) -> None:
    """Deletes functions of versions that no process uses any more; those of this version stay.

    The store's address is MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL. It looks for 20 seconds at who is
    connected. As long as somebody is who does not say which functions it uses, it deletes nothing and exits with 1.
    """
    settings = CliSettings.load()
    store = Store(settings.store_admin_url or settings.store_url)
    lines, is_sure = asyncio.run(_pruned(store, is_dry=dry_run))
    for line in lines:
        show(line)
    if not is_sure:
        raise typer.Exit(1)


async def _pruned(store: Store, *, is_dry: bool) -> tuple[list[str], bool]:
    """Returns what to say, and whether it was known who uses what."""
    try:
        with advised(ADVICE):
            await store.open()
        names = await libraries.held(store)
        use = await libraries.in_use(store, libraries.LOOKED_S)
        gone = libraries.unused(names, OURS, use) if is_dry else await libraries.prune(store, OURS, use)
    finally:
        await store.close()
    return told(names, gone, use, is_dry=is_dry), not use.unknown


def told(names: list[str], gone: list[str], use: libraries.Use, *, is_dry: bool) -> list[str]:
    """Says of each library what became of it, and why. Pure."""
    ours = {library.name for library in OURS}
    lines = []
    for name in names:
        if use.many[name]:
            lines.append(f"{name} stays: {use.many[name]} connection(s) use it")
        elif name in ours:
            lines.append(f"{name} stays: it is of this version")
        elif name in gone:
            lines.append(f"{name} {'would be' if is_dry else 'was'} deleted: nobody uses it")
        else:
            lines.append(f"{name} stays: it is not known whether somebody uses it")
    if use.unknown:
        some = ", ".join(sorted(use.unknown)[:MOST_NAMED])
        lines.append(f"{len(use.unknown)} connection(s) do not say what they use, nothing is deleted: {some}")
    return lines
