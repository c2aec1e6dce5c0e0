"""Load: callers that wait for each other, and callers that do not."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from benchmarks.parts import BenchmarkError

Act = Callable[[], Awaitable[None]]
"""One call or task; it checks for itself that it was answered in full."""


async def closed_loop(act: Act, times: int, in_flight: int) -> list[float]:
    """Acts `times` times, `in_flight` at once, each caller as soon as it was answered; returns latencies in seconds.

    A closed loop can fall into step with a timer of the server: hold its figures against those of `random_phases`.
    """
    latencies: list[float] = []
    left = times

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = time.perf_counter()
            await act()
            latencies.append(time.perf_counter() - started)

    await together([caller() for _ in range(in_flight)])
    return checked(latencies, times)


async def random_phases(act: Act, times: int, per_s: float, rng: random.Random) -> list[float]:
    """Acts at random moments, `per_s` times a second on the average, whether earlier calls were answered or not.

    Latencies count from the moment that was due, so that a server which is late cannot hide it.
    """
    latencies: list[float] = []
    loop = asyncio.get_running_loop()

    async def caller(due: float) -> None:
        await asyncio.sleep(due - loop.time())
        await act()
        latencies.append(loop.time() - due)

    at, dues = loop.time() + 0.01, []
    for _ in range(times):
        at += rng.expovariate(per_s)
        dues.append(at)
    await together([caller(due) for due in dues])
    return checked(latencies, times)


async def together(callers: list[Awaitable[None]]) -> None:
    """Runs callers at once; the first failure is the benchmark's."""

    async def run(one: Awaitable[None]) -> None:
        await one

    try:
        async with asyncio.TaskGroup() as group:
            for one in callers:
                group.create_task(run(one))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def checked(latencies: list[float], times: int) -> list[float]:
    """Refuses latencies that cannot be.

    Raises:
        BenchmarkError: Some are missing, or negative.
    """
    if len(latencies) != times:
        raise BenchmarkError(f"{len(latencies)} answers to {times} calls")
    if min(latencies) < 0:
        raise BenchmarkError(f"a latency of {min(latencies)} s: a clock ran backwards")
    return latencies
