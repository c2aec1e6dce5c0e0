"""Keys at a tool host: what was done is never done twice, whoever is lost meanwhile."""

import asyncio
import subprocess
import sys
import textwrap

import pytest
import structlog

from meshwright.core.canonical import digest
from meshwright.core.errors import (
    FencedError,
    InvalidRequestError,
    InvocationOpenError,
    MeshError,
    OutcomeUnknownError,
    UnavailableError,
)
from meshwright.core.store import Store
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState, Outcome
from meshwright.registry import keyed_calls, tool
from meshwright.registry.host import ToolHost
from meshwright.registry.store import LIBRARY, Ledger
from tests.registry.host_tools import RUNS, TOOLS, failure, grant, pay, value


@pytest.mark.parametrize("pin", ["put@1.0.0", "pay@1.0.0"])
async def test_the_same_key_is_answered_from_the_ledger(call, pin):
    first = await call(pin, n=7)
    second = await call(pin, n=7)
    assert (first.replayed, second.replayed) == (False, True)
    assert value(first) == value(second)
    assert RUNS == [7]
    await call(pin, "another", n=7)
    assert RUNS == [7, 7]


async def test_a_failure_is_an_outcome_and_is_not_tried_again(store):
    @tool(timeout_s=5)
    async def burn() -> str:
        """Fails."""
        RUNS.append("burnt")
        raise ValueError("too hot")

    hosted = ToolHost([burn], Ledger(store))
    for is_replayed in (False, True):
        outcome = await hosted.invoke(grant(tools=["burn@1.0.0"]), "burn@1.0.0", "{}", "k")
        assert failure(outcome).reason == "TOOL_FAILED"
        assert outcome.replayed is is_replayed
    assert RUNS == ["burnt"]


@pytest.mark.parametrize("pin", ["put@1.0.0", "pay@1.0.0"])
async def test_the_same_key_at_once_runs_once(call, pin):
    outcomes = await asyncio.gather(*(call(pin, n=1, wait_s=0.05) for _ in range(10)))
    assert len({outcome.result_json for outcome in outcomes}) == 1
    assert sum(not outcome.replayed for outcome in outcomes) == 1
    assert RUNS == [1]


async def test_the_same_key_at_once_at_two_hosts_runs_once(call, store):
    other = ToolHost(TOOLS, Ledger(store))
    outcomes = await asyncio.gather(*(call("pay@1.0.0", on=on, n=1, wait_s=0.05) for on in (None, other) * 5))
    assert {outcome.result_json for outcome in outcomes} == {'"paid 1"'}
    assert RUNS == [1]


async def test_a_restarted_host_knows_what_was_done(call, store):
    await call("pay@1.0.0", n=1)
    restarted = ToolHost(TOOLS, Ledger(store))
    assert (await call("pay@1.0.0", on=restarted, n=1)).replayed
    assert RUNS == [1]


@pytest.mark.parametrize("changes", [{"task_id": "other"}, {"principal": "other"}, {"tenant": "other"}])
async def test_a_key_counts_within_its_task_and_owner(hosted, changes):
    for holder in ({}, changes):
        outcome = await hosted.invoke(grant(**holder), "pay@1.0.0", "{}", "k")
        assert not outcome.replayed
    assert RUNS == [0, 0]


@pytest.mark.parametrize(("pin", "n"), [("pay@1.0.0", 2), ("put@1.0.0", 1)], ids=["arguments", "tool"])
async def test_a_key_is_not_taken_for_another_call(call, pin, n):
    await call("pay@1.0.0", n=1)
    with pytest.raises(InvalidRequestError) as caught:
        await call(pin, n=n)
    assert list(caught.value.fields) == ["idempotency_key"]
    assert RUNS == [1]


@pytest.mark.parametrize("key", ["", "a b", "x" * 65, ".fence"])
async def test_an_effect_needs_a_proper_key(call, key):
    with pytest.raises(InvalidRequestError) as caught:
        await call("pay@1.0.0", key)
    assert list(caught.value.fields) == ["idempotency_key"]
    assert value(await call("look@1.0.0", key)) == 0
    assert RUNS == [0]


async def test_a_lower_fence_is_refused(hosted):
    await hosted.invoke(grant(fence=2), "pay@1.0.0", "{}", "first")
    for key in ("first", "second"):
        with pytest.raises(FencedError):
            await hosted.invoke(grant(fence=1), "pay@1.0.0", "{}", key)
    assert (await hosted.invoke(grant(fence=3), "pay@1.0.0", "{}", "first")).replayed
    assert RUNS == [0]


@pytest.fixture
def lost(store):
    """A call that some host began and never settled; its time is over."""

    async def begin(pin, *, timeout_s=-1.0, **arguments):
        name, _, version = pin.partition("@")
        await Ledger(store).begin(
            ("t", "p", "task"),
            "k",
            intent=digest([name, version, arguments]),
            timeout_s=timeout_s,
            may_rerun=False,
            fence=1,
            token="lost",
        )

    return begin


async def test_a_lost_hosts_effect_is_unknown_and_is_not_run_again(call, lost):
    await lost("pay@1.0.0", n=1)
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await call("pay@1.0.0", n=1)
    assert RUNS == []


async def test_an_idempotent_tool_runs_again_after_its_host_was_lost(call, lost):
    await lost("put@1.0.0", n=1)
    assert value(await call("put@1.0.0", n=1)) == "put 1"
    assert RUNS == [1]


@pytest.fixture
def state(hosted):
    async def state_(key="k", **changes):
        found, outcome = await hosted.outcome(grant(**changes), key)
        assert (outcome is not None) == (found == InvocationState.INVOCATION_STATE_DONE)
        return InvocationState.Name(found).removeprefix("INVOCATION_STATE_"), outcome

    return state_


async def test_a_key_is_not_seen_then_running_then_done(call, state):
    assert await state() == ("NOT_SEEN", None)
    paying = asyncio.create_task(call("pay@1.0.0", n=1, wait_s=0.1))
    while not RUNS:
        await asyncio.sleep(0.005)
    assert await state() == ("RUNNING", None)
    paid = await paying
    name, outcome = await state()
    assert (name, value(outcome), outcome.replayed) == ("DONE", value(paid), True)
    assert RUNS == [1]


@pytest.mark.parametrize("changes", [{"task_id": "other"}, {"principal": "other"}, {"tenant": "other"}])
async def test_what_became_of_a_key_is_known_within_its_task_alone(call, state, changes):
    await call("pay@1.0.0")
    assert await state(**changes) == ("NOT_SEEN", None)


async def test_a_key_of_a_pure_tool_leaves_no_trace(call, state):
    await call("look@1.0.0")
    assert await state() == ("NOT_SEEN", None)


async def test_a_key_whose_host_was_lost_is_running_until_its_time_is_over_and_then_unknown(lost, state):
    await lost("pay@1.0.0", timeout_s=30)
    assert await state() == ("RUNNING", None)
    await lost("pay@1.0.0", timeout_s=-1.0)  # the same attempt, with less time
    assert await state() == ("UNKNOWN", None)
    assert RUNS == []


async def test_to_ask_for_an_outcome_changes_nothing(hosted, call, state, store):
    await call("pay@1.0.0")
    (keys,) = await store.run(("KEYS", "*ledger*"))
    before = await store.run(("HGETALL", keys[0]))
    await state(fence=9)
    await state("another")
    assert await store.run(("HGETALL", keys[0])) == before


async def test_an_outcome_that_waits_for_the_store_is_not_lost(hosted, lost, state):
    await lost("pay@1.0.0")
    hosted._keyed._running[("t", "p", "task"), "k", "any"] = asyncio.current_task()
    assert await state() == ("RUNNING", None)


async def test_a_call_is_held_against_its_journaled_digest(hosted):
    wrong = digest(["pay", "1.0.0", {"n": 2}])
    for pin in ("pay@1.0.0", "look@1.0.0"):
        with pytest.raises(InvalidRequestError) as caught:
            await hosted.invoke(grant(), pin, '{"n": 1}', "k", wrong)
        assert list(caught.value.fields) == ["intent_digest"]
    assert RUNS == []
    right = digest(["pay", "1.0.0", {"n": 1}])
    assert value(await hosted.invoke(grant(), "pay@1.0.0", '{"n": 1}', "k", right)) == "paid 1"


async def test_a_call_with_effects_runs_and_settles_on_a_full_store(run_valkey, tmp_path):
    store = Store(run_valkey(tmp_path).url, LIBRARY)
    await store.open()
    await store.client.config_set("maxmemory", "1")
    with pytest.raises(MeshError):
        await store.run(("SET", "more", "x"))
    hosted = ToolHost(TOOLS, Ledger(store))
    for is_replayed in (False, True):
        outcome = await hosted.invoke(grant(), "pay@1.0.0", '{"n": 1}', "k")
        assert (value(outcome), outcome.replayed) == ("paid 1", is_replayed)
    assert RUNS == [1]
    await store.close()


async def test_a_call_that_is_still_open_elsewhere_is_waited_for(call, lost, store, monkeypatch):
    monkeypatch.setattr(keyed_calls, "OPEN_POLL_S", 0.01)
    await lost("pay@1.0.0", timeout_s=30, n=1)
    waiting = asyncio.create_task(call("pay@1.0.0", n=1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    intent = digest(["pay", "1.0.0", {"n": 1}])
    settled = Outcome(result_json='"paid there"').SerializeToString()
    await Ledger(store).settle(("t", "p", "task"), "k", intent, settled)
    outcome = await waiting
    assert (value(outcome), outcome.replayed) == ("paid there", True)
    assert RUNS == []


async def test_a_call_that_stays_open_is_told_to_be_so(store, lost, monkeypatch):
    monkeypatch.setattr(keyed_calls, "OPEN_POLL_S", 0.01)
    monkeypatch.setattr(keyed_calls, "PATIENCE_S", -5)
    hosted = ToolHost(TOOLS, Ledger(store))
    await lost("pay@1.0.0", timeout_s=30, n=1)
    with pytest.raises(InvocationOpenError):
        await hosted.invoke(grant(), "pay@1.0.0", '{"n": 1}', "k")


async def test_a_caller_that_goes_away_does_not_lose_the_outcome(call):
    leaving = asyncio.create_task(call("pay@1.0.0", n=1, wait_s=0.3))
    while not RUNS:
        await asyncio.sleep(0.005)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    outcome = await call("pay@1.0.0", n=1, wait_s=0.3)
    assert (value(outcome), outcome.replayed) == ("paid 1", True)
    assert RUNS == [1]


async def test_an_outcome_waits_for_a_store_that_is_away(run_valkey, tmp_path, monkeypatch):
    monkeypatch.setattr(keyed_calls, "SETTLE_RETRY_S", 0.02)
    own = run_valkey(tmp_path)
    store = Store(own.url, LIBRARY)
    await store.open()
    ledger, waits = Ledger(store), []
    settle = ledger.settle

    async def settled(*args, **kwargs):
        try:
            return await settle(*args, **kwargs)
        except MeshError:
            waits.append(1)
            raise

    monkeypatch.setattr(ledger, "settle", settled)
    hosted = ToolHost(TOOLS, ledger)
    calling = asyncio.create_task(hosted.invoke(grant(), "pay@1.0.0", '{"n": 1, "wait_s": 0.1}', "k"))
    while not RUNS:
        await asyncio.sleep(0.005)
    with structlog.testing.capture_logs() as lines:
        own.kill()
        async with asyncio.timeout(30):
            while len(waits) < 3:
                await asyncio.sleep(0.01)
        own.start()
        async with asyncio.timeout(20):
            assert value(await calling) == "paid 1"
    told = [(line["event"], line["task_id"]) for line in lines if line["event"].startswith("outcome_")]
    assert told == [("outcome_waits", "task"), ("outcome_written", "task")]
    async with asyncio.timeout(20):
        assert (await hosted.invoke(grant(), "pay@1.0.0", '{"n": 1, "wait_s": 0.1}', "k")).replayed
    assert RUNS == [1]
    await store.close()


LOSABLE = """
    import asyncio, json, sys
    from pathlib import Path
    from meshwright.core import logs
    from meshwright.core.log_levels import Levels
    from meshwright.core.store import Store
    from meshwright.gen.agents.v1.grant_pb2 import Grant
    from meshwright.registry import tool
    from meshwright.registry.host import ToolHost
    from meshwright.registry.store import LIBRARY, Ledger

    @tool(timeout_s=0.2)
    async def pay() -> str:
        '''Pays.'''
        print("paying", flush=True)
        await asyncio.sleep(0 if sys.argv[2] == "fast" else 60)
        return "paid"

    async def main():
        logs.write_lines(Levels(), "pays", "pays-1")
        store = Store(sys.argv[1], LIBRARY)
        await store.open()
        grant = Grant(tenant="t", principal="p", task_id="task", tools=["pay@1.0.0"])
        outcome = await ToolHost([pay], Ledger(store)).invoke(grant, "pay@1.0.0", "{}", "k")
        print(outcome.result_json, outcome.replayed)
        await store.close()

    asyncio.run(main())
"""


@pytest.fixture
def other_host(store):
    """A process that calls `pay` in the same store."""

    def start(pace):
        command = [sys.executable, "-c", textwrap.dedent(LOSABLE), store.url, pace]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


async def test_a_host_that_was_killed_while_it_paid_leaves_an_unknown_outcome(other_host, call):
    with other_host("slow") as other:
        assert other.stdout.readline() == "paying\n"
        other.kill()
    with pytest.raises(OutcomeUnknownError):
        await call("pay@1.0.0")
    assert RUNS == []


async def test_a_host_that_ended_after_it_had_paid_has_left_its_outcome(other_host, call):
    with other_host("fast") as other:
        assert other.communicate(timeout=60)[0] == 'paying\n"paid" False\n'
    outcome = await call("pay@1.0.0")
    assert (value(outcome), outcome.replayed) == ("paid", True)
    assert RUNS == []


class TestForgo:
    """A caller that cannot reach the host gives the call up."""

    GRANT = Grant(tenant="default", principal="default", task_id="t1", tools=["pay@1.0.0"], fence=1)
    INTENT = digest(["pay", "1.0.0", {"n": 1}])

    async def test_a_call_that_was_not_begun_never_will_be(self, store):
        ledger = Ledger(store)
        error = UnavailableError("the host cannot be reached")
        outcome = await ToolHost([], ledger).forgo(self.GRANT, "k1", self.INTENT, error)
        assert MeshError.from_status(outcome.error).reason == "UNAVAILABLE"
        late = await ToolHost([pay], ledger).invoke(self.GRANT, "pay@1.0.0", '{"n": 1}', "k1")
        assert (late.replayed, MeshError.from_status(late.error).reason) == (True, "UNAVAILABLE")
        assert RUNS == []

    async def test_a_call_that_was_begun_may_have_run(self, store):
        ledger = Ledger(store)
        holder = ("default", "default", "t1")
        await ledger.begin(holder, "k1", intent=self.INTENT, timeout_s=5, may_rerun=False, fence=1, token="t")
        with pytest.raises(OutcomeUnknownError):
            await ToolHost([], ledger).forgo(self.GRANT, "k1", self.INTENT, UnavailableError("gone"))

    async def test_a_call_that_has_ended_has_the_outcome_that_it_had(self, store):
        ledger = Ledger(store)
        await ToolHost([pay], ledger).invoke(self.GRANT, "pay@1.0.0", '{"n": 1}', "k1")
        outcome = await ToolHost([], ledger).forgo(self.GRANT, "k1", self.INTENT, UnavailableError("gone"))
        assert outcome.result_json == '"paid 1"'
        assert RUNS == [1]
