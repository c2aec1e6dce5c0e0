"""Checks: what holds, what does not, and how that is told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.evals.case import Checks
from meshwright.agents.evals.checks import failures, holds
from meshwright.agents.testing import Played
from meshwright.core.canonical import to_struct
from meshwright.core.errors import ModelRejectedError
from meshwright.gen.agents.v1.step_event_pb2 import (
    ChildStep,
    Delegation,
    LlmCall,
    PlannedCall,
    StepEvent,
    TaskStarted,
    ToolCall,
)
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_ERROR, FINISH_REASON_STOP, PendingInput, TaskResponse


def played(
    output: str = "The fence is 7.\n\nmodel: offline", finish: Any = FINISH_REASON_STOP, **fields: Any
) -> Played:
    planned = PlannedCall(call_id="c1", tool="ask.researcher", arguments=to_struct({"prompt": "find it"}))
    search = ToolCall(call_id="c1", tool="docs.search", arguments=to_struct({"query": "fence", "limit": 6}))
    child = [
        StepEvent(task_id="t.1", started=TaskStarted(agent_id="researcher")),
        StepEvent(task_id="t.1", tool_call=search),
    ]
    events = [
        StepEvent(task_id="t", started=TaskStarted(agent_id="desk")),
        StepEvent(task_id="t", llm_call=LlmCall(planned_calls=[planned])),
        StepEvent(task_id="t", delegation=Delegation(call_id="c1", agent_id="researcher")),
        *(StepEvent(task_id="t", child=ChildStep(event=event)) for event in child),
    ]
    return Played(
        TaskResponse(output=output, finish_reason=finish, steps_used=2, tokens_used=500, **fields), tuple(events)
    )


@pytest.mark.parametrize(
    "checks",
    [
        {"contains": ["fence", "7"]},
        {"lacks": ["model: offline"]},
        {"matches": ["^The fence is \\d\\.$"]},
        {"equals": " The fence is 7.\n"},
        {"calls": [{"tool": "docs.search"}]},
        {"calls": [{"tool": "docs.*", "arguments": {"limit": 6}, "agent": "researcher"}]},
        {"calls": [{"tool": "ask.researcher", "arguments": {"prompt": "find it"}, "agent": "desk"}]},
        {"no_calls": [{"tool": "docs.read"}, {"tool": "docs.search", "agent": "desk"}]},
        {"no_calls": [{"tool": "docs.search", "arguments": {"limit": 7}}]},
        {"max_steps": 2, "max_tokens": 500},
        {"finish": "stop"},
    ],
)
def test_what_holds_is_no_failure(checks):
    assert failures(Checks.model_validate(checks), played()) == []


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        ({"contains": ["moat"]}, "does not contain 'moat': 'The fence is 7.'"),
        ({"lacks": ["fence"]}, "contains 'fence'"),
        ({"matches": ["^fence"]}, "does not match ^fence: 'The fence is 7.'"),
        ({"equals": "7"}, "is not '7': 'The fence is 7.'"),
        ({"schema": {"type": "object"}}, "is no JSON: 'The fence is 7.'"),
        ({"calls": [{"tool": "docs.read"}]}, "made no call of docs.read: calls were ask.researcher, docs.search"),
        (
            {"calls": [{"tool": "docs.search", "arguments": {"limit": 7}, "agent": "desk"}]},
            'made no call of docs.search with {"limit": 7} by desk: calls were ask.researcher, docs.search',
        ),
        ({"no_calls": [{"tool": "*"}]}, "made a call of *"),
        ({"max_steps": 1}, "took 2 steps, at most 1 are allowed"),
        ({"max_tokens": 499}, "took 500 tokens, at most 499 are allowed"),
        ({"finish": "deadline"}, "finish is stop, not deadline"),
    ],
)
def test_what_does_not_hold_is_told_in_a_line(checks, told):
    assert failures(Checks.model_validate(checks), played()) == [told]


def test_an_answer_of_json_is_held_against_its_schema():
    checks = Checks.model_validate({"schema": {"type": "object", "properties": {"words": {"type": "integer"}}}})
    assert failures(checks, played('{"words": 6}')) == []
    assert failures(checks, played('{"words": "six"}')) == [
        'does not fit its schema: /words: "six" is not of type "integer"'
    ]


def test_a_task_that_failed_says_why():
    error = ModelRejectedError("no such model").to_status()
    told = failures(Checks.model_validate({"contains": ["fence"]}), played("", FINISH_REASON_ERROR, error=error))
    assert told[0] == "finish is error, not stop: no such model"


def test_a_task_that_asks_says_what():
    asking = Played(TaskResponse(), (), (PendingInput(prompt="May I?"),))
    assert failures(Checks(finish="input_required"), asking) == []
    assert failures(Checks(finish="stop"), asking) == ["finish is input_required, not stop: May I?"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES, st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_a_value_holds_itself_and_an_object_whatever_is_added(value, more):
    assert holds(value, value)
    if isinstance(value, dict):
        assert holds({**more, **value}, value)


@pytest.mark.parametrize(("value", "part"), [(1, True), ([1, 2], [1]), ({"a": 1}, {"b": 1}), ("a", "A"), (None, {})])
def test_what_differs_is_not_held(value, part):
    assert not holds(value, part)
