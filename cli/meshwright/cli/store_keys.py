"""`meshwright store rewrap`: data keys leave an old master key, so that it can be thrown away."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from meshwright.agents.data_keys import Census, DataKeys
from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.cli.output import show
from meshwright.cli.settings import CliSettings
from meshwright.core.audit import OF_MESH, OPERATOR, line_of
from meshwright.core.codec import VARIABLE, Codec, ContentKeys
from meshwright.core.errors import SetupError
from meshwright.core.store import MESH, Store, partition_key

TOLD_EVERY_S = 1.0


def rewrap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; nothing is written")] = False,
) -> None:
    """Wraps all data keys with the first key of MESHWRIGHT_CONTENT_KEYS_FILE, beside a mesh that runs.

    The store's address is MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL. It may be cut off and run again.
    Prints how many data keys each master key holds; exits with 0 where the first holds all of them, else with 1.
    """
    settings = CliSettings.load()
    if not settings.content_keys_file:
        raise SetupError(f"{VARIABLE} is not set: name the file of keys, the one to wrap with as its first")
    keys = ContentKeys.read(Path(settings.content_keys_file))
    url = settings.store_admin_url or settings.store_url
    store = Store(url) if dry_run else Store(url, JOURNAL_LIBRARY, codec=Codec(keys))
    census = asyncio.run(walked(store, keys, is_dry=dry_run))
    for line in told(census, keys):
        show(line)
    if not census.is_of(keys.first):
        raise typer.Exit(1)


async def walked(store: Store, keys: ContentKeys, *, is_dry: bool) -> Census:
    """Walks over all data keys, and says on stderr how far it has come; returns what holds at the end."""
    try:
        await store.open()
        data_keys = DataKeys(store, keys)
        if is_dry:
            return await _followed(data_keys.count())
        await _note(store, keys.first, line_of(OPERATOR, "begun"))
        census = await _followed(data_keys.rewrap())
        await _note(store, keys.first, line_of(OPERATOR, "ok", seen=census.seen))
        return census
    finally:
        await store.close()


async def _note(store: Store, key_id: str, line: str) -> None:
    """Writes into the audit of the mesh that data keys are wrapped with a master key."""
    slot, function = partition_key(MESH, "audit"), JOURNAL_LIBRARY.function("note")
    await store.call(function, slot, MESH, OF_MESH, "keys_rewrapped", key_id, line)


async def _followed(walk: AsyncIterator[Census]) -> Census:
    census, rewrapped, last = Census(), 0, time.monotonic()
    async for found in walk:
        if found is not census:
            census, rewrapped = found, rewrapped + census.rewrapped
        if time.monotonic() >= last + TOLD_EVERY_S:
            last = time.monotonic()
            typer.echo(f"{census.seen} data keys seen, {rewrapped + census.rewrapped} wrapped anew", err=True)
    return census


def told(census: Census, keys: ContentKeys) -> list[str]:
    """Says what each master key holds, and what to do with it. Pure."""
    lines = [f"{keys.first} holds {census.held[keys.first]} data key(s), and all that are new"]
    for key_id in sorted({*keys.ids, *census.held} - {keys.first}):
        many = census.held[key_id]
        if key_id not in keys.ids:
            lines.append(f"{key_id} holds {many} data key(s) and is not in {VARIABLE}: add it below the first")
        elif many:
            lines.append(f"{key_id} holds {many} data key(s): run `meshwright store rewrap`")
        else:
            lines.append(f"{key_id} holds nothing: where no process has it as its first, it may be taken out")
    if census.stale:
        lines.append(f"{census.stale} came while they were wrapped: move {keys.first} to the top in every process")
    if census.unreadable:
        places = ", ".join(census.named)
        lines.append(f"{census.unreadable} cannot be opened (delete their tasks or sessions): {places}")
    return lines
