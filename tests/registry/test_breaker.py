"""The circuit breaker of a tool: who is let through, what opens it, and that a trial is made by one call alone."""

import asyncio
import json

import pytest

from meshwright.core import telemetry
from meshwright.core.breaker import FEWEST_CALLS, OPEN_S, Circuit
from meshwright.core.errors import InvalidRequestError, MeshError, ToolCircuitOpenError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState
from meshwright.registry import Retryable, tool
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger


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
    (lines,) = await store.run(("LLEN", "mw:{0}:audit:t:lines"))
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
