"""Results: what the reason for an end means for status, output and error."""

import pytest

from meshwright.agents.account import Account
from meshwright.agents.models.model import Message
from meshwright.agents.result import (
    MAX_OUTPUT_CHARS,
    NOTHING,
    STOP,
    WORDS,
    End,
    cancelled,
    idle_result,
    result_of,
    say_there_is_nothing,
    timed_out,
)
from meshwright.agents.run import Run
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import Record
from meshwright.core.errors import MeshError, ModelUnavailableError
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    BUDGET_ACTION_PARTIAL,
    FINISH_REASON_BLOCKED,
    FINISH_REASON_CANCELLED,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_DEADLINE,
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    Usage,
)

BUDGETS = (FINISH_REASON_MAX_STEPS, FINISH_REASON_TOKEN_BUDGET_EXCEEDED, FINISH_REASON_COST_BUDGET_EXCEEDED)


@pytest.fixture
def run(made):
    run = Run(None, Record.fresh(made.task(), 1_000, SharedLimits()), None, None, None)
    run.state.messages.append(Message("assistant", "So far."))
    run.state.step = 2
    run.state.usage = Usage(input_tokens=5, output_tokens=6, tool_calls=7)
    return run


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (FINISH_REASON_STOP, TASK_STATUS_COMPLETED),
        *((reason, TASK_STATUS_COMPLETED) for reason in BUDGETS),
        (FINISH_REASON_DEADLINE, TASK_STATUS_FAILED),
        (FINISH_REASON_BLOCKED, TASK_STATUS_FAILED),
        (FINISH_REASON_ERROR, TASK_STATUS_FAILED),
        (FINISH_REASON_CANCELLED, TASK_STATUS_CANCELLED),
    ],
)
def test_a_reason_means_a_status(reason, status):
    assert End(reason).status(BUDGET_ACTION_PARTIAL) == status


@pytest.mark.parametrize("reason", BUDGETS)
def test_a_used_up_budget_fails_where_that_is_asked_for(run, reason):
    run.record.request.on_budget_exceeded = BUDGET_ACTION_FAIL
    result = result_of(run, End(reason), "1.0.0")
    assert result.status == TASK_STATUS_FAILED
    assert MeshError.from_status(result.error).reason == "BUDGET_EXCEEDED"
    assert result.output == "So far."


def test_a_result_holds_what_the_run_knows(run):
    result = result_of(run, STOP, "1.2.3")
    assert (result.task_id, result.agent_id, result.agent_version) == ("t1", "worker", "1.2.3")
    assert (result.output, result.steps_used, result.tokens_used, result.tool_calls) == ("So far.", 2, 11, 7)
    assert result.usage == run.state.usage
    assert not result.HasField("error")


def test_an_answer_without_words_is_empty_and_a_stop_shows_what_there_is(run):
    run.state.messages[:] = [Message("tool", "found", call_id="c")]
    assert result_of(run, STOP, "").output == ""
    assert result_of(run, End(FINISH_REASON_MAX_STEPS), "").output == "found"


@pytest.mark.parametrize("reason", BUDGETS)
def test_a_budget_that_ends_before_there_is_anything_is_said_in_words(run, reason):
    run.state.messages.clear()
    result = result_of(run, End(reason), "")
    say_there_is_nothing(result)
    assert (result.status, result.finish_reason, result.unanswered) == (TASK_STATUS_COMPLETED, reason, True)
    assert result.output == f"{WORDS[reason]} {NOTHING}"


@pytest.mark.parametrize("reason", [*BUDGETS, FINISH_REASON_STOP])
def test_who_has_a_part_of_an_answer_or_an_empty_one_is_not_spoken_for(run, reason):
    part = result_of(run, End(reason), "")
    run.state.messages.clear()
    empty = result_of(run, STOP, "")
    run.record.request.on_budget_exceeded = BUDGET_ACTION_FAIL
    failure = result_of(run, End(FINISH_REASON_MAX_STEPS), "")
    for result, output in ((part, "So far."), (empty, ""), (failure, "")):
        say_there_is_nothing(result)
        assert (result.output, result.unanswered) == (output, False)


def test_output_is_bounded(run):
    run.state.messages.append(Message("assistant", "x" * (MAX_OUTPUT_CHARS + 1)))
    assert len(result_of(run, STOP, "").output) == MAX_OUTPUT_CHARS


def test_a_failure_carries_its_reason_and_the_task(run):
    result = result_of(run, End(FINISH_REASON_ERROR, ModelUnavailableError("away")), "")
    error = MeshError.from_status(result.error)
    assert (error.reason, error.metadata) == ("MODEL_UNAVAILABLE", {"task_id": "t1"})
    assert MeshError.from_status(result_of(run, timed_out(), "").error).reason == "TASK_TIMEOUT"
    assert not result_of(run, cancelled("enough"), "").HasField("error")


@pytest.mark.parametrize(
    ("reason", "state", "status"),
    [("enough", "CANCELLED", TASK_STATUS_CANCELLED), ("", "FAILED", TASK_STATUS_FAILED)],
)
async def test_an_idle_task_ends_cancelled_or_out_of_time(journal, made, reason, state, status):
    await journal.accept(made.task(), claim=False)
    if reason:
        await journal.cancel(made.name(), reason)
    found, event = idle_result(await journal.record(made.name()), Account())
    assert (found, event.result.status) == (state, status)
    assert event.result.HasField("error") == (state == "FAILED")
