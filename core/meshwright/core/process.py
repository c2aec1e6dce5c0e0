"""Life of a service process: start, one ready line, signals, one-line errors, an end."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from meshwright.core.errors import MeshError
from meshwright.core.redaction import redacted

GC_THRESHOLD = (50_000, 20, 50)
"""Calls make many short-lived objects that go by themselves: cycles among them are rare."""


class Process:
    """Handed to a service's main function.

    Attributes:
        stopping: Set by SIGTERM and SIGINT; a service that is not ready by then is cancelled.
        is_ready: Whether the parent was told so.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.is_ready = False

    def ready(self, **facts: str | int) -> None:
        """Tells the parent, in one line of JSON on stdout, that the service answers, and where."""
        self.is_ready = True
        gc.collect()
        gc.freeze()  # what is here now stays, and need not be looked through again and again
        gc.set_threshold(*GC_THRESHOLD)
        sys.stdout.write(json.dumps(facts | {"pid": os.getpid()}) + "\n")
        sys.stdout.flush()


def run(main: Callable[[Process], Awaitable[None]]) -> NoReturn:
    """Runs a service until it is told to stop; exits 0, or 1 with one line on stderr."""
    try:
        live(main)
    except MeshError as error:
        sys.stderr.write(f"error: {' '.join(redacted(error.message).split())}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0)


def live(main: Callable[[Process], Awaitable[None]]) -> None:
    """Runs a service until it is told to stop, for a command that tells of errors itself.

    Raises:
        MeshError: Why it could not start, or not go on.
    """
    asyncio.run(_run(main))


async def _run(main: Callable[[Process], Awaitable[None]]) -> None:
    process = Process()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stopping.set)
    work = asyncio.ensure_future(main(process))
    told = asyncio.create_task(process.stopping.wait())
    await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
    if not process.is_ready and not work.done():  # it still starts: there is nothing to drain
        await ended(work)
    await ended(told)
    if not work.cancelled():
        await work


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks and waits until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def signal_to(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Sends a signal to a process, if it still runs.

    `send_signal` of asyncio polls the process first in the older Pythons, which takes its exit code from
    the loop that waits for it: the loop then warns of an unknown child and reports 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
