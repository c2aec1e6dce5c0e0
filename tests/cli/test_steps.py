"""Steps drawn on a terminal: what passes is left out, but for how far a call has come."""

import io

import pytest
from rich.console import Console

from meshwright.cli.steps import Steps
from meshwright.gen.agents.v1.step_event_pb2 import (
    GUARDRAIL_ACTION_ALLOW,
    GUARDRAIL_ACTION_ASK,
    GUARDRAIL_ACTION_BLOCK,
    GUARDRAIL_POINT_OUTPUT,
    GUARDRAIL_POINT_TOOL_RESULT,
    NOTICE_KIND_PARKED,
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    RESERVATION_STATE_RELEASED,
    TOOL_OUTCOME_OK,
    BudgetNotice,
    ChildStep,
    ContextCompacted,
    Correction,
    Delegation,
    GuardrailVerdict,
    Heartbeat,
    InputResolved,
    LlmCall,
    ModelReservation,
    RunnerNotice,
    StepEvent,
    StreamGap,
    TaskStarted,
    TextDelta,
    ToolCall,
    ToolProgress,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    PendingInput,
    TaskResponse,
    Usage,
)


def drawn(*events, is_verbose=False):
    text = io.StringIO()
    steps = Steps(Console(file=text, width=200), is_verbose=is_verbose)
    for event in events:
        steps.draw(event)
    return text.getvalue()


def report(fraction, message, call_id="c1"):
    return StepEvent(progress=ToolProgress(call_id=call_id, fraction=fraction, message=message))


def test_progress_is_told_once_a_second_for_each_call():
    text = drawn(report(0.25, "a quarter"), report(0.5, "half"), report(-1, "of another", "c2"))
    assert "25% a quarter" in text
    assert "half" not in text
    assert "of another" in text


def test_text_that_is_being_written_is_left_out():
    assert not drawn(StepEvent(delta=TextDelta(text="Hello")))


EVERY_KIND = {
    "started": (TaskStarted(agent_id="worker", tool_pins=["docs.read@1.0.0"]), "▶ worker starts with docs.read@1.0.0"),
    "llm_call": (LlmCall(model="m", latency_ms=7, usage=Usage(input_tokens=3)), "● answers (m, 3 tokens, 7 ms)"),
    "delta": (TextDelta(text="Hello"), ""),
    "tool_call": (ToolCall(tool="docs.read"), "→ docs.read {}"),
    "tool_result": (ToolResult(outcome=TOOL_OUTCOME_OK, latency_ms=5), "← ok (5 ms)"),
    "delegation": (Delegation(agent_id="helper", granted_tokens=9), "↳ asks helper, with up to 9 tokens"),
    "child": (ChildStep(event=StepEvent(task_id="t.1", delegation=Delegation(agent_id="x"))), "↳ asks x"),
    "guardrail": (
        GuardrailVerdict(rule="secrets", point=GUARDRAIL_POINT_OUTPUT, action=GUARDRAIL_ACTION_BLOCK, reason="A key."),
        "✗ guardrail secrets: block at output: A key.",
    ),
    "context_compacted": (ContextCompacted(from_tokens=9, to_tokens=4), "≈ conversation shortened from about 9 to 4"),
    "input_requested": (
        PendingInput(prompt="Which?", choices=[DECISION_ANSWER]),
        "? Which? Decide with one of meshwright task resolve t1 answer",
    ),
    "input_resolved": (InputResolved(decision=DECISION_ANSWER, decided_by="ann"), "✓ ann: answer"),
    "budget": (BudgetNotice(limit="tool_calls", used_fraction=0.8), "! 80% of its tool calls are used up"),
    "notice": (RunnerNotice(kind=NOTICE_KIND_PARKED, detail="It waits."), "! parked: It waits."),
    "heartbeat": (Heartbeat(), ""),
    "gap": (StreamGap(from_sequence=3, to_sequence=9), "! events 3 to 9 are gone"),
    "progress": (ToolProgress(call_id="c1", fraction=0.5), "⋯ 50%"),
    "reservation": (
        ModelReservation(model="m", cost_micros=1_500, state=RESERVATION_STATE_CHARGED),
        "! US$ 0.001500 count as spent on m: its answer was lost with a worker",
    ),
    "correction": (
        Correction(reason="OUTPUT_SCHEMA_VIOLATED", text="/n: must\nbe a number"),
        "↺ answer handed back: output schema violated: /n: must be a number",
    ),
    "result": (TaskResponse(status=TASK_STATUS_COMPLETED, finish_reason=FINISH_REASON_STOP), "■ completed (stop)"),
}
PASSING = ("delta", "heartbeat", "gap", "progress")


def test_the_example_of_every_kind_is_here():
    assert set(EVERY_KIND) == {field.name for field in StepEvent.DESCRIPTOR.oneofs_by_name["event"].fields}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_event_has_its_line_or_is_left_out_on_purpose(kind):
    event, words = EVERY_KIND[kind]
    text = drawn(StepEvent(task_id="t1", sequence=0 if kind in PASSING else 1, **{kind: event}))
    assert words in " ".join(text.split())
    assert len(text.splitlines()) == (2 if kind == "input_requested" else bool(words))


@pytest.mark.parametrize(
    "event",
    [
        StepEvent(sequence=1, guardrail=GuardrailVerdict(rule="all", action=GUARDRAIL_ACTION_ALLOW)),
        StepEvent(sequence=1, reservation=ModelReservation(model="m", state=RESERVATION_STATE_OPEN)),
        StepEvent(sequence=1, reservation=ModelReservation(model="m", state=RESERVATION_STATE_RELEASED)),
    ],
)
def test_what_goes_as_it_should_is_no_news(event):
    assert not drawn(event)


def test_a_guardrail_that_does_not_stop_anything_is_a_warning():
    asks = GuardrailVerdict(rule="injection", point=GUARDRAIL_POINT_TOOL_RESULT, action=GUARDRAIL_ACTION_ASK)
    assert "! guardrail injection: ask at tool result" in " ".join(drawn(StepEvent(sequence=2, guardrail=asks)).split())


def test_an_answer_that_was_kept_says_so():
    call = LlmCall(model="m", cached=True, usage=Usage(saved_tokens=40))
    assert "(m, from the cache, saved 40 tokens, 0 ms)" in drawn(StepEvent(sequence=2, llm_call=call))


def test_why_a_model_was_asked_is_said_to_those_who_want_to_know():
    event = StepEvent(sequence=2, llm_call=LlmCall(model="m", routed_because="first of the chain"))
    assert "first of" not in drawn(event)
    assert "chosen: first of the chain" in drawn(event, is_verbose=True)
