"""`meshwright chaos`: breaks a mesh of its own on purpose, in every way it knows, and says which promises held."""

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from meshwright.cli.chaos.catalog import SCENARIOS, chosen
from meshwright.cli.chaos.mutants import GUARDS
from meshwright.cli.chaos.report import Played, show_report
from meshwright.cli.chaos.scenario import Row, Scenario, Setting
from meshwright.cli.options import Output
from meshwright.cli.output import Format
from meshwright.core.errors import InvalidRequestError, SetupError

SEEDS = 10**6
NAMES = ", ".join(one.name for one in SCENARIOS)


def chaos(
    scenarios: Annotated[list[str] | None, typer.Argument(help=f"Of {NAMES}; by default all quick ones")] = None,
    full: Annotated[bool, typer.Option("--full", help="In full size, which takes minutes a scenario")] = False,
    seed: Annotated[int | None, typer.Option(help="Of everything drawn by chance; by default drawn, and told")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="New folder that keeps logs and evidence; by default none are kept")
    ] = None,
    mutant: Annotated[str, typer.Option(help="Takes out a mechanism, to see whether the scenarios notice")] = "",
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Scenarios at once, each on a mesh of its own")] = 1,
    output: Output = Format.TABLE,
) -> None:
    """Breaks a real mesh on purpose and reports which promises held; exits with 1 where one did not."""
    wanted = chosen(scenarios or ())
    if mutant and mutant not in GUARDS:
        raise InvalidRequestError(f"there is no mutant {mutant!r}: there are {', '.join(GUARDS)}")
    drawn = random.randrange(SEEDS) if seed is None else seed  # noqa: S311 - no secret
    console = Console(stderr=True)
    console.print(f"seed {drawn}: the same draws again with --seed {drawn}", style="dim", highlight=False)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))  # the report is what counts

    def setting(one: Scenario, home: Path) -> Setting:
        def tell(what: str) -> None:
            console.print(f"{one.name}: {what}", style="dim", highlight=False, markup=False)

        own = home / one.name
        own.mkdir()
        return Setting(full, drawn, own, tell, mutant)

    with home(folder) as place:
        played = asyncio.run(play_all([(one, setting(one, place)) for one in wanted], jobs))
    show_report(played, output)
    if any(one.row.broken for one in played):
        raise typer.Exit(1)


@contextmanager
def home(folder: Path | None) -> Iterator[Path]:
    """Makes the folder under which each scenario has its own; one that was not named is removed in the end."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mw-chaos-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise SetupError(f"the folder {folder} cannot be made: {error.strerror}: choose a new one") from None
    yield folder.resolve()


async def play_all(wanted: Sequence[tuple[Scenario, Setting]], jobs: int) -> list[Played]:
    """Plays scenarios, a few at once; SIGTERM and Ctrl-C end all of them and whatever they have started."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    places = asyncio.Semaphore(jobs)

    async def played(one: Scenario, setting: Setting) -> Played:
        async with places:
            return await play(one, setting)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(played(one, setting)) for one, setting in wanted]
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    return [task.result() for task in tasks]


async def play(one: Scenario, setting: Setting) -> Played:
    """Plays one scenario; one that fails by itself has shown nothing, so its promises count as broken."""
    started = time.monotonic()
    setting.tell("begins")
    try:
        row = await one.play(setting)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other scenarios go on
        said = " ".join(str(error).split()) or type(error).__name__
        row = Row("not played", broken=[f"it could not be played: {type(error).__name__}: {said}"])
    ended = Played(one, row, time.monotonic() - started)
    setting.tell("; ".join((f"{ended.verdict} after {ended.seconds:.0f} s", *row.broken)))
    return ended
