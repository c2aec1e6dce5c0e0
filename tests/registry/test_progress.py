"""Progress: thinned out, from coroutines and threads alike, and never in the way."""

import asyncio
import math
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry import Invocation, current_invocation, tool
from meshwright.registry.host import ToolHost
from meshwright.registry.progress import MESSAGE_BYTES, MIN_INTERVAL_S, Reporter, bounded
from meshwright.registry.store import Ledger


@settings(deadline=None)
@given(fraction=st.floats(), message=st.text())
def test_a_report_keeps_its_bounds(fraction, message):
    share, line = bounded(fraction, message)
    assert share == -1 or 0 <= share <= 1
    assert "\n" not in line
    assert len(line.encode()) <= MESSAGE_BYTES


@pytest.mark.parametrize("fraction", [-1, -0.1, math.nan])
def test_what_is_no_share_is_unknown(fraction):
    assert bounded(fraction, "") == (-1, "")


def test_half_a_surrogate_pair_does_not_keep_a_report_back():
    assert bounded(2, "a\ud800\n b") == (1, "a? b")


async def test_the_first_report_passes_at_once_and_of_those_between_the_last():
    told = []
    reporter = Reporter(lambda share, line: told.append((share, line)))
    reporter.offer(0.1, "")
    await asyncio.sleep(0)
    assert [share for share, _ in told] == [0.1]
    for share in (0.2, 0.3, 0.4):
        reporter.offer(share, "")
        await asyncio.sleep(0)
    assert len(told) == 1
    async with asyncio.timeout(5):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    assert [share for share, _ in told] == [0.1, 0.4]


async def test_at_the_end_the_last_report_is_told_and_none_after_it():
    told = []
    reporter = Reporter(lambda share, line: told.append((share, line)))
    reporter.offer(0.1, "")
    await asyncio.sleep(0)
    reporter.offer(0.9, "nearly")
    reporter.end()
    reporter.offer(1.0, "late")
    await asyncio.sleep(2 * MIN_INTERVAL_S)
    assert [line for _, line in told] == ["", "nearly"]


async def test_a_thread_that_reports_without_pause_is_passed_on_ten_times_a_second():
    told, is_over = [], threading.Event()
    reporter = Reporter(lambda _, line: told.append((time.monotonic(), line)))

    def flood():
        n = 0
        while not is_over.is_set():
            n += 1
            reporter.offer(n / 1e9, str(n))

    thread = threading.Thread(target=flood)
    thread.start()
    await asyncio.sleep(0.55)
    is_over.set()
    await asyncio.to_thread(thread.join)
    reporter.end()
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(told[:-1])]
    assert 2 <= len(told) <= 8
    assert all(gap > 0.9 * MIN_INTERVAL_S for gap in gaps)
    assert [int(line) for _, line in told] == sorted(int(line) for _, line in told)


def test_a_report_after_the_end_of_the_loop_is_lost_in_silence():
    async def made():
        return Reporter(lambda _, __: None)

    asyncio.run(made()).offer(0.5, "")


GRANT = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["walk@1.0.0", "climb@1.0.0"])


@tool(effect="pure", timeout_s=5)
async def walk() -> list[float]:
    """Walks."""
    call = current_invocation()
    call.progress(0.5, "half way")
    await asyncio.sleep(0)
    call.progress(1.0)
    return [call.seconds_left()]


@tool(effect="non_idempotent", timeout_s=5)
def climb() -> str:
    """Climbs, in a thread."""
    call = current_invocation()
    call.progress(0.5, "half way")
    return f"{call.agent_id} {call.session_id or '-'} {call.task_id}"


@pytest.mark.parametrize("pin", ["walk@1.0.0", "climb@1.0.0"])
async def test_a_tool_tells_how_far_it_has_come(store, pin):
    host, told = ToolHost([walk, climb], Ledger(store)), []
    outcome = await host.call(GRANT, pin, {}, "k", "0" * 64, on_progress=lambda share, line: told.append((share, line)))
    assert not outcome.HasField("error")
    assert (0.5, "half way") in told


async def test_a_tool_that_nobody_watches_reports_to_nobody(store):
    host = ToolHost([walk, climb], Ledger(store))
    assert not (await host.invoke(GRANT, "walk@1.0.0", "{}", "k")).HasField("error")


async def test_a_tool_knows_its_agent_its_session_and_its_time(store):
    host = ToolHost([walk, climb], Ledger(store))
    assert (await host.invoke(GRANT, "climb@1.0.0", "{}", "k")).result_json == '"a - task"'
    talking = Grant(session_id="s-1")
    talking.MergeFrom(GRANT)
    assert (await host.invoke(talking, "climb@1.0.0", "{}", "l")).result_json == '"a s-1 task"'
    left = float((await host.invoke(GRANT, "walk@1.0.0", "{}", "k")).result_json.strip("[]"))
    assert 4 < left <= 5
    assert Invocation("t", "p", "task", "k", ends=time.monotonic() - 1).seconds_left() == 0
