"""Time limits: what they end, and what they leave alone."""

import asyncio

import pytest

from meshwright.core.limit import Limit


async def test_what_takes_longer_is_ended():
    limit = Limit(0.01)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(5)
    assert limit.is_over
    this = asyncio.current_task()
    assert this
    assert this.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_ends_in_time_is_left_alone():
    limit = Limit(0.01)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    assert not limit.is_over


async def test_a_failure_inside_passes():
    with pytest.raises(ValueError, match="mine"), Limit(5):
        raise ValueError("mine")


async def test_the_inner_one_of_two_limits_ends_alone():
    with Limit(5) as outer:
        with pytest.raises(TimeoutError), Limit(0.01):
            await asyncio.sleep(5)
        await asyncio.sleep(0)
    assert not outer.is_over


async def test_a_cancellation_from_outside_stays_one_even_when_the_time_is_over_as_well():
    async def work() -> None:
        with Limit(0.01):
            try:
                await asyncio.sleep(5)
            finally:
                task.cancel()  # both at once

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancelled_task_is_no_timeout():
    entered = asyncio.Event()

    async def work() -> None:
        with Limit(5):
            entered.set()
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
