"""`python -m k8s.rehearsal`: rehearses the manifests, prints the figures; exits with 1 where a promise was broken."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from k8s.rehearsal.figures import Figures, show_figures
from k8s.rehearsal.play import FULL, SHORT, Plan, play
from meshwright.cli.output import Format
from meshwright.core.errors import MeshError, SetupError

INTERRUPTED = 130
LONGEST = 48
"""Bytes of the folder's path: a socket's may have 107, and the rest of it names pod, volume and file."""


def main() -> int:
    """Reads the command line, plays, prints."""
    parser = argparse.ArgumentParser(prog="python -m k8s.rehearsal", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few pods and phases, in about a minute")
    parser.add_argument("--folder", type=Path, help="new folder with a short path, which keeps all logs; default: none")
    parser.add_argument("-o", "--output", type=Format, choices=list(Format), default=Format.TABLE)
    chosen = parser.parse_args()
    started = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {what}\n")

    try:
        found = rehearsed(SHORT if chosen.short else FULL, chosen.folder, tell)
    except MeshError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    show_figures(found, chosen.output)
    return 1 if found.broken else 0


def rehearsed(plan: Plan, folder: Path | None, tell: Callable[[str], None]) -> Figures:
    """Plays in a folder that is kept, or in one that is removed.

    Raises:
        SetupError: The folder cannot be made, or its path is too long for the sockets in it.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True) as temporary:
            return rehearsed(plan, Path(temporary) / "r", tell)
    place = folder.resolve()
    if len(bytes(place)) > LONGEST:
        raise SetupError(f"the path {place} is too long for the sockets in it: at most {LONGEST} bytes, by --folder")
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise SetupError(f"the folder {place} cannot be made: {error.strerror}: choose a new one") from None
    return asyncio.run(interruptible(plan, place, tell))


async def interruptible(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Figures:
    """Ends everything that was started at SIGTERM and Ctrl-C, too."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):  # also where a shell has it ignored, as it does in the background
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    return await play(plan, folder, tell)


if __name__ == "__main__":
    sys.exit(main())
