"""The tree of a task: times, tokens and money of models, tools, people and children, whatever order they came in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.cli.trace import rows, told
from meshwright.cli.trace_tree import Tree, nodes
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_FELL_BACK,
    NOTICE_KIND_RETRIED,
    NOTICE_KIND_TAKEN_OVER,
    RESERVATION_STATE_CHARGED,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_OK,
    ChildStep,
    ContextCompacted,
    Delegation,
    InputResolved,
    LlmCall,
    ModelReservation,
    PlannedCall,
    RunnerNotice,
    StepEvent,
    StreamGap,
    TaskStarted,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    EmbeddingUsage,
    PendingInput,
    TaskResponse,
    Usage,
)

ORIGIN = 1_700_000_000_000
ROOT, CHILD = "r1", "r1.abc"


def at(ms, task_id=ROOT, **kind):
    event = StepEvent(task_id=task_id, sequence=1, **kind)
    event.time.FromMilliseconds(ORIGIN + ms)
    return event


def of_child(ms, **kind):
    return at(ms, child=ChildStep(child_task_id=CHILD, event=at(ms, CHILD, **kind)))


def tree(*events, task_id=ROOT):
    task = TaskResponse(task_id=task_id, agent_id="chef", trace_id="ab" * 16)
    task.create_time.FromMilliseconds(ORIGIN)
    grown = Tree(task)
    for event in events:
        grown.add(event)
    grown.close()
    return task, grown.root


def answer(tokens, micros, **more):
    usage = Usage(input_tokens=tokens - 1, output_tokens=1, cost_micros=micros)
    return LlmCall(model="m-1", usage=usage, stop_reason="stop", **more)


def result(micros, reason=FINISH_REASON_STOP):
    usage = Usage(cost_micros=micros)
    return TaskResponse(status=TASK_STATUS_COMPLETED, finish_reason=reason, tokens_used=33, usage=usage)


STORY = (
    at(5, started=TaskStarted(agent_id="chef")),
    at(90, notice=RunnerNotice(kind=NOTICE_KIND_RETRIED)),
    at(95, notice=RunnerNotice(kind=NOTICE_KIND_FELL_BACK)),
    at(100, llm_call=answer(10, 70, latency_ms=80)),
    at(100, tool_call=ToolCall(call_id="c1", tool="oven.heat", version="1.0.0")),
    at(100, delegation=Delegation(call_id="c2", child_task_id=CHILD, agent_id="baker")),
    of_child(120, started=TaskStarted(agent_id="baker")),
    of_child(150, llm_call=answer(20, 30, latency_ms=20)),
    at(180, tool_result=ToolResult(call_id="c1", outcome=TOOL_OUTCOME_OK, latency_ms=60, cost_micros=9)),
    of_child(200, result=result(30)),
    at(300, notice=RunnerNotice(kind=NOTICE_KIND_TAKEN_OVER), attempt=2),
    at(400, llm_call=answer(3, 1, latency_ms=10, cached=True)),
    at(500, result=result(110, FINISH_REASON_MAX_STEPS)),
)


def test_a_task_is_told_with_its_children_their_times_and_money():
    task, root = tree(*STORY)
    facts = told(task, root)
    assert facts["trace_id"] == "ab" * 16
    assert facts["start_time"] == "2023-11-14T22:13:20Z"
    top = facts["tree"]
    assert (top["name"], top["start_ms"], top["duration_ms"]) == ("chef", 0, 500)
    assert (top["tokens"], top["cost_micros"], top["status"]) == (33, 110, "completed")
    assert (top["takeovers"], top["notes"]) == (1, ["max steps"])
    model, tool, child, last = top["children"]
    assert (model["kind"], model["name"], model["start_ms"], model["duration_ms"]) == ("model", "m-1", 20, 80)
    assert (model["tokens"], model["cost_micros"], model["retries"], model["notes"]) == (10, 70, 1, ["fell back"])
    assert (tool["kind"], tool["name"], tool["start_ms"], tool["duration_ms"]) == ("tool", "oven.heat@1.0.0", 120, 60)
    assert (tool["id"], tool["status"], tool["cost_micros"]) == ("c1", "ok", 9)
    assert (child["kind"], child["name"], child["start_ms"], child["duration_ms"]) == ("task", "baker", 100, 100)
    assert [one["kind"] for one in child["children"]] == ["model"]
    assert (last["notes"], last["retries"]) == (["from the cache"], 0)


def test_a_tree_is_drawn_with_a_line_for_each():
    _, root = tree(*STORY)
    assert [row[0] for row in rows(root, ORIGIN)] == [
        "task chef",
        "├─ model m-1",
        "├─ tool oven.heat@1.0.0",
        "├─ task baker",
        "│  └─ model m-1",
        "└─ model m-1",
    ]
    first = next(rows(root, ORIGIN))
    assert first[1:] == ("0.000", "0.500", "33", "0.000110", "completed, 2 workers, max steps")
    assert [*rows(root, ORIGIN)][1][5] == "stop, 2 tries, fell back"


def test_what_has_not_ended_is_open_and_has_cost_what_it_has_until_now():
    _, root = tree(*STORY[:8])
    child = next(one for one in root.below if one.kind == "task")
    assert (child.tokens, child.cost_micros, child.duration_ms) == (20, 30, None)
    assert (root.tokens, root.cost_micros, root.status) == (30, 100, "")
    assert next(rows(root, ORIGIN))[5] == "still open"


def test_people_refusals_summaries_and_lost_answers_have_lines_of_their_own():
    lost = ModelReservation(model="m-2", cost_micros=40, state=RESERVATION_STATE_CHARGED)
    embedding = EmbeddingUsage(model="e", cost_micros=3)
    _, root = tree(
        at(10, input_requested=PendingInput(input_id="i1", tool="oven.heat")),
        at(70, input_resolved=InputResolved(input_id="i1")),
        at(79, llm_call=answer(5, 0, planned_calls=[PlannedCall(call_id="c9", tool="oven.break")])),
        at(80, tool_result=ToolResult(call_id="c9", outcome=TOOL_OUTCOME_DENIED)),
        at(90, context_compacted=ContextCompacted(model="m-1", usage=Usage(input_tokens=4, cost_micros=2))),
        at(95, reservation=lost),
        at(99, llm_call=answer(5, 1, embedding=embedding)),
    )
    person, _, refused, summary, charged, model = root.below
    assert (person.kind, person.name, person.duration_ms) == ("person", "oven.heat", 60)
    assert (refused.name, refused.status, refused.duration_ms) == ("oven.break", "denied", 0)
    assert (summary.kind, summary.tokens, summary.cost_micros) == ("summary", 4, 2)
    assert (charged.status, charged.cost_micros) == ("lost", 40)
    assert model.cost_micros == 4
    assert root.cost_micros == 46


def test_events_that_are_gone_are_said_to_be():
    _, root = tree(at(10, gap=StreamGap(from_sequence=1, to_sequence=7)))
    assert root.notes == ["events 1 to 7 are gone"]


KINDS = [*STORY, at(50, tool_call=ToolCall(call_id="c1", tool="oven.heat", version="1.0.0"))]


@pytest.mark.parametrize("stranger", [at(1, "other", llm_call=answer(5, 5)), at(1, heartbeat={})])
def test_events_of_strangers_are_left_out(stranger):
    assert tree(stranger)[1].below == []


@given(st.lists(st.sampled_from(KINDS), max_size=30))
def test_every_line_is_drawn_once_whatever_the_journal_holds(events):
    _, root = tree(*events)
    assert len([*rows(root, ORIGIN)]) == len([*nodes(root)])
    assert all(node.duration_ms is None or node.duration_ms >= 0 for node in nodes(root))
