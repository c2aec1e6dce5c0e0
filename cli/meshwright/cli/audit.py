"""`meshwright audit`: who did what, at the store: whoever reaches it as its admin is the mesh's operator."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from meshwright.cli.audit_check import Anchors, AuditCheck, Verdict, anchors_of, check_file
from meshwright.cli.key import ADVICE, DevData, Output, StoreUrl, advised, seconds, store_url
from meshwright.cli.output import Format, show, show_table
from meshwright.cli.settings import CliSettings
from meshwright.core.audit import AuditReader
from meshwright.core.audit_chain import AuditLine
from meshwright.core.errors import InvalidRequestError, SetupError, StoreDeniedError
from meshwright.core.store import Store
from meshwright.core.store_user import ADMIN

app = typer.Typer(no_args_is_help=True, help="The audit: who did what; look at it, export it, verify that it is whole.")
T = TypeVar("T")
TOLD_EVERY_S = 1.0
Tenant = Annotated[str | None, typer.Option(help="Whose lines; '' is the mesh itself  [default: all]")]
Since = Annotated[str, typer.Option(help="From when on: 30d, 12h or 90m ago, or 2026-01-31T12:00Z")]


@app.command("list")
def list_lines(
    tenant: Tenant = None,
    since: Since = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many; the newest")] = 50,
    output: Output = Format.TABLE,
    store: StoreUrl = None,
    data: DevData = None,
) -> None:
    """Lists lines, the newest last."""
    begin = moment(since)

    async def newest(reader: AuditReader) -> list[AuditLine]:
        kept: list[AuditLine] = []
        async for line in all_lines(reader, tenant, begin):
            kept.append(line)
            if len(kept) >= 2 * limit:
                kept = sorted(kept, key=order)[-limit:]
        return sorted(kept, key=order)[-limit:]

    found = with_reader(store, data, newest)
    if output is Format.TABLE:
        columns = ("TIME", "TENANT", "BY", "EVENT", "ABOUT", "OUTCOME", "FACTS")
        show_table(columns, map(row, found))
    elif output is Format.JSON:
        show(json.dumps([line.told() for line in found], indent=2))
    else:
        for line in found:
            show(json.dumps(line.told()))


@app.command()
def export(tenant: Tenant = None, since: Since = "", store: StoreUrl = None, data: DevData = None) -> None:
    """Prints lines as JSON, one a line, chain after chain: what `audit verify FILE` checks without a store."""
    begin = moment(since)

    async def told(reader: AuditReader) -> None:
        async for line in all_lines(reader, tenant, begin):
            show(json.dumps(line.told()))

    with_reader(store, data, told)


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without one, the store is looked at")] = None,
    tenant: Tenant = None,
    since: Since = "",
    against: Annotated[
        Path | None, typer.Option(help="An earlier export: the lines that it ends with must still be there")
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="The file is of `export --since`: what stood before its lines is not in it"),
    ] = False,
    output: Output = Format.TABLE,
    store: StoreUrl = None,
    data: DevData = None,
) -> None:
    """Checks that no line was changed, removed, inserted or moved; names the first that was, and exits with 1."""
    if partial and not file:
        raise InvalidRequestError("--partial is for an exported file: name it", fields={"partial": "needs a FILE"})
    begin, anchors = moment(since), read_anchors(against)
    progress = Told()
    if file:
        with opened(file) as texts:
            verdicts = check_file(texts, progress, is_partial=partial)
    else:

        async def checked(reader: AuditReader) -> list[Verdict]:
            return [one async for one in AuditCheck(reader, anchors, progress).verdicts(tenant, begin)]

        verdicts = with_reader(store, data, checked)
    show_verdicts(verdicts, output)
    if file and not verdicts:
        raise nothing_in(file)
    if any(verdict.fault for verdict in verdicts):
        raise typer.Exit(1)


class Told:
    """Says on stderr how many lines were checked, once a second."""

    def __init__(self) -> None:
        self._many = 0
        self._last = time.monotonic()

    def __call__(self, many: int) -> None:
        """Counts lines."""
        self._many += many
        if time.monotonic() >= self._last + TOLD_EVERY_S:
            self._last = time.monotonic()
            typer.echo(f"{self._many} lines checked", err=True)


async def all_lines(reader: AuditReader, tenant: str | None, since_ms: int) -> AsyncIterator[AuditLine]:
    """Yields the lines of chains, chain after chain."""
    for place in await reader.places(tenant):
        async for line in reader.lines(place, since_ms):
            yield line


def order(line: AuditLine) -> tuple[int, str, str, int]:
    """Says in which order lines of several chains are shown."""
    return line.time_ms, line.partition, line.tenant, line.number


def row(line: AuditLine) -> tuple[str, ...]:
    """Writes a line for people."""
    facts = dict(line.facts)
    by = str(facts.pop("by", ""))
    told = " ".join(f"{name}={value}" for name, value in facts.items())
    return when(line.time_ms), line.named_tenant or "-", by or "-", line.event, line.about, line.outcome, told


def show_verdicts(verdicts: list[Verdict], output: Format) -> None:
    """Prints what was found of chains, and the neighbours of what does not fit."""
    if output is not Format.TABLE:
        told = [facts(verdict) for verdict in verdicts]
        for text in [json.dumps(told, indent=2)] if output is Format.JSON else map(json.dumps, told):
            show(text)
        return
    columns = ("TENANT", "PARTITION", "LINES", "LAST", "FOUND")
    show_table(
        columns,
        (
            (
                one.last.named_tenant if one.last and one.last.tenant else one.place[1] or "-",
                one.place[0],
                str(one.lines),
                f"{one.last.number} {one.last.link[:12]}" if one.last else "-",
                f"BROKEN: {one.fault.what}" if one.fault else "; ".join(["whole", *one.notes]),
            )
            for one in verdicts
        ),
    )
    for broken in verdicts:
        if broken.fault:
            neighbours = (("before", broken.fault.before), ("broken", broken.fault.line), ("after", broken.after))
            for word, line in neighbours:
                show(f"{word}: {json.dumps(line.told()) if line else '-'}")


def facts(verdict: Verdict) -> dict[str, object]:
    """Returns a verdict as data for JSON."""
    fault = verdict.fault
    lines = {"before": fault and fault.before, "broken": fault and fault.line, "after": verdict.after}
    return {
        "partition": verdict.place[0],
        "tenant": verdict.place[1],
        "lines": verdict.lines,
        "last": verdict.last.number if verdict.last else 0,
        "link": verdict.last.link if verdict.last else "",
        "fault": fault.what if fault else None,
        **{word: line.told() if line else None for word, line in lines.items()},
        "notes": verdict.notes,
    }


def with_reader(store: str | None, data: Path | None, work: Callable[[AuditReader], Awaitable[T]]) -> T:
    """Runs a command's work on the audit of the mesh that it names.

    Raises:
        StoreDeniedError: The store's user may not read all of it; says whose address is needed.
    """

    async def run() -> T:
        admin = "" if store or data else CliSettings.load().store_admin_url
        opened_store = Store(admin or store_url(store, data))
        try:
            with advised(ADVICE):
                await opened_store.open()
            return await work(AuditReader(opened_store))
        except StoreDeniedError:
            raise StoreDeniedError(
                f"this user of the store may not read the whole audit: take the address of {ADMIN}, "
                "by --store or MESHWRIGHT_STORE_ADMIN_URL"
            ) from None
        finally:
            await opened_store.close()

    return asyncio.run(run())


def read_anchors(file: Path | None) -> Anchors:
    """Reads the lines that an earlier export ended with."""
    if file is None:
        return {}
    with opened(file) as texts:
        anchors = anchors_of(texts)
    if not anchors:
        raise nothing_in(file)
    return anchors


def nothing_in(file: Path) -> typer.Exit:
    """Says on stderr that a file proves nothing; returns how the command ends."""
    typer.echo(f"{file} holds no line of an audit: nothing was verified; export it again", err=True)
    return typer.Exit(1)


@contextmanager
def opened(file: Path) -> Iterator[Iterator[str]]:
    """Opens an exported file.

    Raises:
        SetupError: It cannot be read.
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as texts:
            yield texts
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}") from None


def moment(text: str) -> int:
    """Returns a time in milliseconds: a span before now, or a date; empty: 0.

    Raises:
        InvalidRequestError: It is none.
    """
    if not text:
        return 0
    if text[-1] in "mhd":
        return int((time.time() - seconds(text)) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        forms = "30d, 12h, 90m or 2026-01-31T12:00:00Z"
        raise InvalidRequestError(f"{text!r} is no time: write {forms}", fields={"since": forms}) from None
    return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))


def when(time_ms: int) -> str:
    """Writes a time as UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
