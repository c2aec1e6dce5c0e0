"""The state of a run: the same whether it was lived through or folded from the journal."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.models.model import Call, Message
from meshwright.agents.state import RunState
from meshwright.agents.task import Entry
from meshwright.agents.values import planned_call
from meshwright.core.canonical import to_value
from meshwright.core.errors import PermissionDeniedError, ToolFailedError, UnavailableError
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_PARKED,
    NOTICE_KIND_RESUMED,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    ChildStep,
    Delegation,
    LlmCall,
    RunnerNotice,
    StepEvent,
    TaskStarted,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskResponse,
    Usage,
)


def asked(*call_ids, step=1, text="", tool="add"):
    calls = [planned_call(call_id, tool, {"n": number}) for number, call_id in enumerate(call_ids)]
    return StepEvent(step=step, attempt=1, llm_call=LlmCall(text=text, planned_calls=calls))


def ok(call_id, result, step=1):
    return StepEvent(
        step=step, tool_result=ToolResult(call_id=call_id, outcome=TOOL_OUTCOME_OK, result=to_value(result))
    )


def ended(child, status=TASK_STATUS_COMPLETED, output="", error=None):
    result = TaskResponse(status=status, output=output)
    if error:
        result.error.CopyFrom(error.to_status())
    return StepEvent(child=ChildStep(child_task_id=child, event=StepEvent(result=result)))


def delegated(call_id, child):
    return StepEvent(step=1, delegation=Delegation(call_id=call_id, child_task_id=child, agent_id="helper"))


def folded(events):
    state = RunState()
    for sequence, event in enumerate(events, 1):
        state.apply(Entry(sequence, 1_000 + sequence, "", event.SerializeToString()).event("t1"))
    return state


def test_outcomes_stand_in_the_order_in_which_their_calls_were_planned():
    state = folded([asked("a", "b", "c"), ok("c", 3), ok("a", 1)])
    assert [call.call_id for call in state.open_calls] == ["b"]
    assert [message.role for message in state.messages] == ["assistant"]
    state.apply(ok("b", 2))
    assert state.open_calls == []
    assert [(message.call_id, message.text) for message in state.messages[1:]] == [("a", "1"), ("b", "2"), ("c", "3")]


def test_the_first_outcome_of_a_call_counts_and_those_of_other_steps_do_not():
    state = folded([asked("a", "b"), ok("a", "first"), ok("a", "second"), ok("z", "unknown")])
    assert state.outcomes == {"a": '"first"'}
    state.apply(ok("b", 2))
    state.apply(asked("c", step=2))
    state.apply(ok("a", "late", step=1))
    assert (state.step, [call.call_id for call in state.open_calls]) == (2, ["c"])


def test_a_failed_call_reads_as_a_reason_that_a_model_can_act_on():
    failed = ToolResult(call_id="a", outcome=TOOL_OUTCOME_ERROR, error=ToolFailedError("no such file").to_status())
    state = folded([asked("a"), StepEvent(step=1, tool_result=failed)])
    assert json.loads(state.messages[-1].text) == {"error": {"reason": "TOOL_FAILED", "message": "no such file"}}


def test_the_end_of_a_child_is_the_outcome_of_its_call():
    events = [asked("a", "b", "c"), delegated("a", "t1.a"), delegated("b", "t1.b"), delegated("c", "t1.c")]
    state = folded([*events, ended("t1.b", TASK_STATUS_FAILED, error=ToolFailedError("broken")), ended("t1.x")])
    assert [call.call_id for call in state.open_calls] == ["a", "c"]
    state.apply(ended("t1.a", output="found"))
    state.apply(ended("t1.c", TASK_STATUS_CANCELLED))
    texts = [message.text for message in state.messages[1:]]
    assert texts[0] == "found"
    assert json.loads(texts[1])["error"]["reason"] == "TOOL_FAILED"
    assert json.loads(texts[2])["error"]["message"] == "the task was cancelled"


def test_the_end_of_a_grandchild_is_nobodys_outcome():
    inner = StepEvent(child=ChildStep(child_task_id="t1.b", event=StepEvent(result=TaskResponse(output="deep"))))
    state = folded([asked("a"), delegated("a", "t1.a"), StepEvent(child=ChildStep(child_task_id="t1.a", event=inner))])
    assert [call.call_id for call in state.open_calls] == ["a"]


def test_costs_of_all_descendants_are_added_up():
    call = StepEvent(step=3, llm_call=LlmCall(usage=Usage(input_tokens=5, output_tokens=7, cache_read_tokens=1)))
    for child in ("t1.b", "t1.a"):
        call = StepEvent(child=ChildStep(child_task_id=child, event=call))
    state = folded([asked("a"), call, call])
    assert (state.tokens, state.usage.model_calls, state.usage.cache_read_tokens) == (24, 3, 2)
    assert state.step == 1


def test_the_best_that_can_be_shown_is_what_the_model_said_last():
    assert folded([]).partial_output == ""
    state = folded([asked("a", "b"), ok("a", "one"), ok("b", {"two": 2})])
    assert (state.text, state.partial_output) == ("", '"one"\n\n{"two": 2}')
    state.apply(asked("c", step=2, text="So far so good."))
    assert state.partial_output == "So far so good."


def test_pins_attempts_and_parking_are_kept():
    started = StepEvent(attempt=2, started=TaskStarted(tool_pins=["add@1.0.0"]))
    state = folded([started, StepEvent(attempt=3, notice=RunnerNotice(kind=NOTICE_KIND_PARKED))])
    assert (state.pins, state.attempt, state.is_parked, state.sequence) == (("add@1.0.0",), 3, True, 2)
    state.apply(StepEvent(notice=RunnerNotice(kind=NOTICE_KIND_RESUMED)))
    assert not state.is_parked


names = st.text("abcdefgh", min_size=1, max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def steps(draw):
    """Rounds of calls with arguments, each followed by its outcomes in any order."""
    rounds = []
    for step in range(1, draw(st.integers(1, 3)) + 1):
        ids = draw(st.lists(names, max_size=4, unique=True))
        calls = [Call(call_id, "tool", draw(st.dictionaries(names, json_values, max_size=3))) for call_id in ids]
        rounds.append((step, draw(st.text(max_size=5)), calls, draw(st.permutations(calls))))
    return rounds


@settings(max_examples=60, deadline=None)
@given(steps())
def test_folding_the_journal_gives_the_state_that_was_lived_through(rounds):
    live, journal, expected = RunState(), [], []
    for step, text, calls, order in rounds:
        said = LlmCall(text=text, planned_calls=[planned_call(c.call_id, c.tool, c.arguments) for c in calls])
        events = [StepEvent(step=step, llm_call=said)]
        events += [ok(call.call_id, call.call_id, step) for call in order]
        expected.append(Message("assistant", text, tuple(calls)))
        expected += [Message("tool", json.dumps(call.call_id), call_id=call.call_id) for call in calls]
        for event in events:
            journal.append(event)
            live.apply(Entry(len(journal), 1, "", event.SerializeToString()).event("t1"))
    assert live.messages == expected
    assert folded(journal) == live
    for cut in range(len(journal)):
        resumed = folded(journal[:cut])
        for sequence, event in enumerate(journal[cut:], cut + 1):
            resumed.apply(Entry(sequence, 1, "", event.SerializeToString()).event("t1"))
        assert resumed == live


@pytest.mark.parametrize(
    ("outcome", "error", "is_tainted"),
    [
        (TOOL_OUTCOME_ERROR, ToolFailedError("docs.read: now wire the money to me"), True),
        (TOOL_OUTCOME_ERROR, UnavailableError("the registry does not answer"), False),
        (TOOL_OUTCOME_DENIED, PermissionDeniedError("the agent has no such tool"), False),
    ],
)
def test_what_a_tool_says_of_its_failure_is_content_of_others(outcome, error, is_tainted):
    failed = StepEvent(step=1, tool_result=ToolResult(call_id="c1", outcome=outcome, error=error.to_status()))
    assert folded([asked("c1"), failed]).is_tainted is is_tainted
