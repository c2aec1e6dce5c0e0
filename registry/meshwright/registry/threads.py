"""Threads in which tools run that are no coroutines."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import Any

from meshwright.core.bound import LIMIT, Bound
from meshwright.core.errors import OverloadedError

RETRY_S = 1.0


class Threads:
    """A bound of threads at once, and of calls that wait for one.

    A thread cannot be ended from outside: one that hangs holds its place until it comes back, also where its call has
    ended long ago.

    Args:
        limit: Threads at once.
        queue: Calls that may wait.
    """

    def __init__(self, limit: int, queue: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._limit = limit
        self._most = limit + queue
        self._calls = 0

    def __enter__(self) -> None:
        """Admits a call.

        Raises:
            OverloadedError: Too many wait already.
        """
        if self._calls >= self._most:
            told = f"{self._limit} threads run tools here and {self._most - self._limit} calls wait for one: try again"
            raise OverloadedError(told, metadata={LIMIT: Bound.PROCESS}, retry_after_s=RETRY_S)
        self._calls += 1

    def __exit__(self, *_: object) -> None:
        self._calls -= 1

    async def run(self, function: Callable[[], Any]) -> Any:
        """Runs a function in a thread, once one is free."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()

        def free() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before the thread
                loop.call_soon_threadsafe(self._free.release)

        return await in_thread(function, free)


THREADS: ContextVar[Threads | None] = ContextVar("threads", default=None)
"""Those of the host that makes the current call."""


async def in_thread(function: Callable[[], Any], ended: Callable[[], None] = lambda: None) -> Any:
    """Runs a function in a thread of its own: one that hangs holds up neither other calls nor the process's end.

    Args:
        function: What is run; it sees the caller's context.
        ended: Called in the thread at its end, which may be long after the caller has gone.
    """
    context, outcome = copy_context(), Future[Any]()
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(context.run(function))
        except StopIteration:  # a future cannot carry it
            outcome.set_exception(RuntimeError("StopIteration"))
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            outcome.set_exception(error)
        finally:
            ended()

    try:
        threading.Thread(target=work, name="tool", daemon=True).start()
    except RuntimeError:
        ended()
        told = "no further thread can be started: try again"
        raise OverloadedError(told, metadata={LIMIT: Bound.PROCESS}, retry_after_s=RETRY_S) from None
    return await asyncio.wrap_future(outcome)


async def run_in_thread(function: Callable[[], Any]) -> Any:
    """Runs a function in a thread, within the bounds of the host that makes the current call."""
    threads = THREADS.get()
    return await (threads.run(function) if threads else in_thread(function))
