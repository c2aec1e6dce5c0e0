"""Attempts: what may pass is tried again where the effect allows it, within the call's time."""

import asyncio
import time

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core.errors import MeshError, PermissionDeniedError, UnavailableError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry import Retryable, execution, tool
from meshwright.registry.execution import FIRST_PAUSE_S, MOST_ATTEMPTS, pause
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger

GRANT = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["flap@1.0.0"])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(execution, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def flapping(store, calls):
    """A host of a tool that fails with some errors, one after the other, then answers."""

    def make(*failures, effect="pure", timeout_s=5, is_threaded=False):
        left = list(failures)

        def answer(items: list[int]) -> int:
            """Fails at first."""
            calls.append((time.monotonic(), list(items)))
            items.append(len(items))  # what an attempt does to its arguments is its own affair
            if left:
                raise left.pop(0)
            return 7

        async def waited(items: list[int]) -> int:
            """Fails at first."""
            return answer(items)

        decorate = tool(name="flap", effect=effect, timeout_s=timeout_s)
        return ToolHost([decorate(answer if is_threaded else waited)], Ledger(store))

    return make


async def outcome_of(host, key="k"):
    return await host.invoke(GRANT, "flap@1.0.0", '{"items": []}', key)


async def test_a_call_is_logged_at_debug_and_a_failure_names_the_tool_with_its_version(flapping):
    with structlog.testing.capture_logs() as told:
        await outcome_of(flapping(ValueError("no")))
        await outcome_of(flapping())
    assert [(line["event"], line["tool"]) for line in told if line["event"] != "tool_called"] == [
        ("tool_begun", "flap@1.0.0"),
        ("tool_failed", "flap@1.0.0"),
        ("tool_answered", "flap@1.0.0"),
        ("tool_begun", "flap@1.0.0"),
        ("tool_answered", "flap@1.0.0"),
    ]
    answered = [line for line in told if line["event"] == "tool_answered"]
    assert [(line["log_level"], line["outcome"]) for line in answered] == [("debug", "TOOL_FAILED"), ("debug", "ok")]
    assert all(line["task_id"] == "task" and line["ms"] >= 0 for line in answered)


@pytest.mark.parametrize("effect", ["pure", "idempotent"])
@pytest.mark.parametrize("is_threaded", [False, True])
async def test_what_may_pass_is_tried_again(flapping, calls, effect, is_threaded):
    host = flapping(Retryable("busy"), UnavailableError("away"), effect=effect, is_threaded=is_threaded)
    outcome = await outcome_of(host)
    assert outcome.result_json == "7"
    assert outcome.annotations["attempts"] == 3
    assert [items for _, items in calls] == [[], [], []]


async def test_the_third_failure_is_the_outcome(flapping, calls):
    host = flapping(*(Retryable(f"busy {n}", retry_after_s=0.002) for n in range(5)), effect="idempotent")
    outcome = await outcome_of(host)
    error = MeshError.from_status(outcome.error)
    assert (error.reason, error.message, error.retry_after_s) == ("TOOL_FAILED", "flap: busy 2", 0.002)
    assert outcome.annotations["attempts"] == MOST_ATTEMPTS == len(calls)
    assert (await outcome_of(host)).replayed
    assert len(calls) == MOST_ATTEMPTS


async def test_what_is_not_idempotent_is_never_tried_again(flapping, calls):
    outcome = await outcome_of(flapping(Retryable("busy"), effect="non_idempotent"))
    assert MeshError.from_status(outcome.error).message == "flap: busy"
    assert "attempts" not in outcome.annotations
    assert len(calls) == 1


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("no"), PermissionDeniedError("no"), OSError("no")])
async def test_what_is_not_said_to_pass_is_not_tried_again(flapping, calls, error):
    assert (await outcome_of(flapping(error))).HasField("error")
    assert len(calls) == 1


async def test_a_call_that_succeeds_at_once_says_nothing_of_attempts(flapping):
    assert not (await outcome_of(flapping())).HasField("annotations")


async def test_a_backend_is_left_alone_for_as_long_as_it_asks(flapping, calls):
    assert (await outcome_of(flapping(Retryable("busy", retry_after_s=0.15)))).result_json == "7"
    (first, _), (second, _) = calls
    assert second - first >= 0.15


async def test_there_is_no_attempt_that_the_calls_time_does_not_hold(flapping, calls):
    started = time.monotonic()
    outcome = await outcome_of(flapping(Retryable("busy", retry_after_s=60), timeout_s=2))
    assert MeshError.from_status(outcome.error).retry_after_s == 60
    assert time.monotonic() - started < 20
    assert len(calls) == 1


async def test_all_attempts_share_the_calls_time(store):
    runs = []

    @tool(name="flap", effect="pure", timeout_s=0.2)
    async def flap() -> int:
        """Fails, then hangs."""
        runs.append(1)
        if len(runs) == 1:
            raise Retryable("busy")
        await asyncio.sleep(20)
        return 1

    async with asyncio.timeout(5):
        outcome = await ToolHost([flap], Ledger(store)).invoke(GRANT, "flap@1.0.0", "{}", "k")
    assert MeshError.from_status(outcome.error).reason == "DEADLINE_EXCEEDED"
    assert outcome.annotations["attempts"] == 2


@settings(deadline=None)
@given(attempts=st.integers(1, MOST_ATTEMPTS))
def test_pauses_double_and_are_not_alike(attempts):
    middle = execution.FIRST_PAUSE_S * 2 ** (attempts - 1)
    assert 0.5 * middle <= pause(attempts) <= 1.5 * middle
    assert FIRST_PAUSE_S * 2**MOST_ATTEMPTS < 1
