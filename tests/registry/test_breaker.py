"""The circuit breaker: when it opens, who is let through, and that a trial is made by one call alone."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import telemetry
from meshwright.core.errors import InvalidRequestError, MeshError, ToolCircuitOpenError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState
from meshwright.registry import Retryable, tool
from meshwright.registry.breaker import FEWEST_CALLS, OPEN_S, WINDOW_CALLS, WINDOW_S, Breaker, Circuit
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger

TRIAL_S = 7.0


class Bench:
    """A breaker, its clock, and what it told."""

    def __init__(self):
        self.now = 100.0
        self.told = []
        self.breaker = Breaker(lambda: self.now, TRIAL_S, self.told.append)

    def calls(self, *failures):
        for is_failure in failures:
            epoch = self.breaker.enter()
            assert epoch is not None
            self.breaker.record(epoch, is_failure=is_failure)
            self.breaker.leave(epoch)

    def open(self):
        self.calls(*[True] * FEWEST_CALLS)
        assert self.breaker.state is Circuit.OPEN


@pytest.fixture
def bench():
    return Bench()


def test_a_backend_that_works_is_called(bench):
    bench.calls(*[False] * 100)
    assert (bench.breaker.state, bench.told) == (Circuit.CLOSED, [])


def test_a_few_failures_open_nothing_and_half_of_the_calls_do(bench):
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(True)
    assert bench.breaker.state is Circuit.OPEN
    assert bench.told == [Circuit.OPEN]


def test_it_is_the_share_that_counts(bench):
    bench.calls(*[False] * 20, *[True] * 19)
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(True)
    assert bench.breaker.state is Circuit.OPEN


def test_old_failures_are_forgotten(bench):
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    bench.now += WINDOW_S
    bench.calls(True)
    assert bench.breaker.state is Circuit.CLOSED


def test_a_long_past_of_success_does_not_hide_failures(bench):
    bench.calls(*[False] * 10 * WINDOW_CALLS)
    bench.calls(*[True] * (WINDOW_CALLS // 2))
    assert bench.breaker.state is Circuit.OPEN


def test_an_open_circuit_lets_nobody_through_until_its_time_is_over(bench):
    bench.open()
    assert bench.breaker.enter() is None
    assert bench.breaker.retry_after_s == OPEN_S
    bench.now += OPEN_S - 0.01
    assert bench.breaker.enter() is None
    bench.now += 0.02
    assert bench.breaker.enter() is not None
    assert bench.told == [Circuit.OPEN, Circuit.ON_TRIAL]


def test_a_trial_is_made_by_one_call_and_its_success_closes(bench):
    bench.open()
    bench.now += OPEN_S
    trial = bench.breaker.enter()
    assert [bench.breaker.enter() for _ in range(9)] == [None] * 9
    assert 0 < bench.breaker.retry_after_s <= 1
    bench.breaker.record(trial, is_failure=False)
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    assert bench.breaker.state is Circuit.CLOSED


def test_a_trial_that_fails_opens_for_as_long_again(bench):
    bench.open()
    bench.now += OPEN_S
    bench.breaker.record(bench.breaker.enter(), is_failure=True)
    assert bench.breaker.state is Circuit.OPEN
    assert bench.breaker.retry_after_s == OPEN_S


def test_a_trial_that_told_nothing_makes_room_for_another(bench):
    bench.open()
    bench.now += OPEN_S
    first = bench.breaker.enter()
    bench.breaker.leave(first)
    second = bench.breaker.enter()
    assert second not in (None, first)


def test_a_trial_that_never_comes_back_is_given_up(bench):
    bench.open()
    bench.now += OPEN_S
    lost = bench.breaker.enter()
    bench.now += TRIAL_S
    second = bench.breaker.enter()
    assert second is not None
    bench.breaker.record(lost, is_failure=False)
    bench.breaker.leave(lost)
    assert bench.breaker.state is Circuit.ON_TRIAL
    assert bench.breaker.enter() is None


def test_an_answer_from_before_says_nothing_about_now(bench):
    late = bench.breaker.enter()
    bench.open()
    bench.breaker.record(late, is_failure=False)
    assert bench.breaker.state is Circuit.OPEN
    bench.now += OPEN_S
    bench.breaker.enter()
    bench.breaker.record(late, is_failure=False)
    assert bench.breaker.state is Circuit.ON_TRIAL


STEPS = st.lists(
    st.one_of(
        st.just(("enter",)),
        st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from([True, False, None])),
        st.tuples(st.just("wait"), st.floats(0, 1.5 * OPEN_S)),
    ),
    max_size=200,
)


@given(steps=STEPS)
def test_outside_of_a_closed_circuit_there_is_at_most_one_call_at_a_time(steps):
    bench = Bench()
    breaker, under_way = bench.breaker, []
    for step, *rest in steps:
        if step == "enter":
            was_closed = breaker.state is Circuit.CLOSED
            epoch = breaker.enter()
            if epoch is not None:
                under_way.append((epoch, bench.now, was_closed))
            trials = [at for _, at, closed in under_way if not closed and at > bench.now - TRIAL_S]
            assert len(trials) <= 1
            assert (epoch is not None) or not was_closed
        elif step == "wait":
            bench.now += rest[0]
        elif under_way:
            epoch, _, _ = under_way.pop(rest[0] % len(under_way))
            if rest[1] is not None:
                breaker.record(epoch, is_failure=rest[1])
            breaker.leave(epoch)


class Backend:
    """What the tools of a test talk to."""

    is_ill = True
    calls = 0


@tool(effect="pure", timeout_s=5)
async def read(n: int = 0) -> str:
    """Reads."""
    return await answer(n)


@tool(effect="non_idempotent", timeout_s=5)
async def pay(n: int = 0) -> str:
    """Pays."""
    return await answer(n)


async def answer(n):
    Backend.calls += 1
    await asyncio.sleep(0.02)
    if n < 0:
        raise ValueError("negative")
    if Backend.is_ill:
        raise RuntimeError("no answer")
    return "done"


GRANT = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["read@1.0.0", "pay@1.0.0"])


class Hosting:
    """A host whose breakers run by a clock of the test."""

    def __init__(self, store):
        Backend.is_ill, Backend.calls = True, 0
        self.now = 0.0
        self.host = ToolHost([read, pay], Ledger(store))
        for one in self.host._hosted.values():
            one.breaker._clock = lambda: self.now
        self.keys = (f"k{n}" for n in range(1_000))

    def call(self, name, n=0):
        return self.host.invoke(GRANT, f"{name}@1.0.0", json.dumps({"n": n}), next(self.keys))

    async def open(self, name):
        outcomes = await asyncio.gather(*(self.call(name) for _ in range(FEWEST_CALLS)))
        assert {MeshError.from_status(one.error).reason for one in outcomes} == {"TOOL_FAILED"}
        assert Backend.calls == FEWEST_CALLS


@pytest.fixture
def hosting(store):
    return Hosting(store)


def circuit(name):
    return telemetry.TOOL_CIRCUIT.labels(f"{name}@1.0.0")._value.get()


@pytest.mark.parametrize("name", ["read", "pay"])
async def test_a_tool_that_keeps_failing_is_left_alone(hosting, store, name):
    await hosting.open(name)
    with pytest.raises(ToolCircuitOpenError) as caught:
        await hosting.call(name)
    assert 0 < caught.value.retry_after_s <= OPEN_S
    assert Backend.calls == FEWEST_CALLS
    assert circuit(name) == Circuit.OPEN
    assert (await hosting.host.outcome(GRANT, f"k{FEWEST_CALLS}"))[0] == InvocationState.INVOCATION_STATE_NOT_SEEN
    (lines,) = await store.run(("XLEN", "mw:{0}:audit:t"))
    assert lines == (2 * FEWEST_CALLS if name == "pay" else 0)
    other = "pay" if name == "read" else "read"
    assert (await hosting.call(other)).HasField("error")
    assert Backend.calls == FEWEST_CALLS + 1


@pytest.mark.parametrize("name", ["read", "pay"])
async def test_of_ten_callers_at_once_one_makes_the_trial(hosting, name):
    await hosting.open(name)
    hosting.now += OPEN_S
    Backend.is_ill = False
    results = await asyncio.gather(*(hosting.call(name) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, ToolCircuitOpenError) for one in results) == 9
    assert [one.result_json for one in results if not isinstance(one, MeshError)] == ['"done"']
    assert Backend.calls == FEWEST_CALLS + 1
    assert circuit(name) == Circuit.CLOSED
    assert (await hosting.call(name)).result_json == '"done"'


async def test_a_known_outcome_is_told_also_while_the_circuit_is_open(hosting):
    Backend.is_ill = False
    hosting.keys = iter(["paid"])
    paid = await hosting.call("pay")
    hosting.keys = (f"k{n}" for n in range(1_000))
    Backend.is_ill, Backend.calls = True, 0
    await hosting.open("pay")
    hosting.keys = iter(["paid", "paid"])
    again = await hosting.call("pay")
    assert (again.result_json, again.replayed) == (paid.result_json, True)
    with pytest.raises(InvalidRequestError):
        await hosting.call("pay", 1)


async def test_a_trial_whose_caller_has_gone_makes_room_for_another(hosting):
    await hosting.open("read")
    hosting.now += OPEN_S
    Backend.is_ill = False
    leaving = asyncio.create_task(hosting.call("read"))
    while Backend.calls == FEWEST_CALLS:
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await hosting.call("read")).result_json == '"done"'


async def test_wrong_arguments_say_nothing_about_the_backend(hosting):
    Backend.is_ill = False
    for n in (-1, "two"):
        for _ in range(2 * FEWEST_CALLS):
            try:
                await hosting.call("read", n)
            except InvalidRequestError:
                assert n == "two"
    assert circuit("read") == Circuit.CLOSED
    assert (await hosting.call("read")).result_json == '"done"'


async def test_timeouts_and_passing_failures_open_the_circuit(store):
    @tool(effect="non_idempotent", timeout_s=0.01)
    async def stall() -> str:
        """Never comes back."""
        await asyncio.sleep(5)
        return ""

    @tool(effect="non_idempotent")
    async def flap() -> str:
        """Fails in a way that may pass."""
        raise Retryable("busy")

    host = ToolHost([stall, flap], Ledger(store))
    for one in (stall, flap):
        pin = f"{one.name}@1.0.0"
        for n in range(FEWEST_CALLS):
            await host.invoke(Grant(task_id="task", tools=[pin]), pin, "{}", f"{one.name}-{n}")
        with pytest.raises(ToolCircuitOpenError):
            await host.invoke(Grant(task_id="task", tools=[pin]), pin, "{}", "more")
