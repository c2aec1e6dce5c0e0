"""The tree of a task: times, tokens and money of models, tools, people and children, whatever order they came in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.cli.trace import read, rows, told
from meshwright.cli.trace_tree import Tree, nodes
from meshwright.core.errors import (
    InvalidRequestError,
    ModelUnavailableError,
    OutputSchemaViolatedError,
    TaskNotFoundError,
    ToolFailedError,
)
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_FELL_BACK,
    NOTICE_KIND_PARKED,
    NOTICE_KIND_RESUMED,
    NOTICE_KIND_RETRIED,
    NOTICE_KIND_TAKEN_OVER,
    NOTICE_KIND_VERSION_CHANGED,
    RESERVATION_STATE_CHARGED,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
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
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    EmbeddingUsage,
    PendingInput,
    TaskResponse,
    Usage,
)
from meshwright.gen.agents.v1.task_service_pb2 import ListTasksResponse
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceServicer

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
    model, tool, child, lost, last = top["children"]
    assert (model["kind"], model["name"], model["start_ms"], model["duration_ms"]) == ("model", "m-1", 20, 80)
    assert (model["tokens"], model["cost_micros"], model["retries"], model["notes"]) == (10, 70, 1, ["fell back"])
    assert (tool["kind"], tool["name"], tool["start_ms"], tool["duration_ms"]) == ("tool", "oven.heat@1.0.0", 120, 60)
    assert (tool["id"], tool["status"], tool["cost_micros"]) == ("c1", "ok", 9)
    assert (child["kind"], child["name"], child["start_ms"], child["duration_ms"]) == ("task", "baker", 100, 100)
    assert [one["kind"] for one in child["children"]] == ["model"]
    assert (lost["kind"], lost["name"], lost["start_ms"], lost["duration_ms"]) == ("takeover", "attempt 2", 200, 100)
    assert (lost["status"], lost["tokens"], lost["cost_micros"]) == ("worker lost", 0, 0)
    assert (last["notes"], last["retries"]) == (["from the cache"], 0)


def test_a_tree_is_drawn_with_a_line_for_each():
    _, root = tree(*STORY)
    assert [row[0] for row in rows(root, ORIGIN)] == [
        "task chef",
        "├─ model m-1",
        "├─ tool oven.heat@1.0.0",
        "├─ task baker",
        "│  └─ model m-1",
        "├─ takeover attempt 2",
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


def taken_over(ms, attempt, task_id=ROOT):
    return at(ms, task_id, notice=RunnerNotice(kind=NOTICE_KIND_TAKEN_OVER), attempt=attempt)


def takeovers(root):
    return [(one.name, one.start_ms - ORIGIN, one.duration_ms) for one in nodes(root) if one.kind == "takeover"]


def test_each_lost_worker_has_a_row_from_its_last_entry_to_the_next_claim():
    _, root = tree(
        at(5, started=TaskStarted(agent_id="chef"), attempt=1),
        at(100, llm_call=answer(10, 0, latency_ms=95), attempt=1),
        taken_over(15_100, 2),
        taken_over(31_000, 4),  # the third was lost before it had written a word
        at(31_200, llm_call=answer(10, 0, latency_ms=200), attempt=4),
        at(31_200, result=result(0), attempt=4),
    )
    assert takeovers(root) == [("attempt 2", 100, 15_000), ("attempt 4", 15_100, 15_900)]
    assert root.takeovers == 2


def test_a_worker_that_was_lost_before_the_first_entry_has_a_row_from_acceptance_on():
    _, root = tree(at(15_300, started=TaskStarted(agent_id="chef"), attempt=2))
    assert takeovers(root) == [("attempt 2", 0, 15_300)]
    assert root.takeovers == 1
    assert takeovers(tree(at(5, started=TaskStarted(agent_id="chef"), attempt=1))[1]) == []


def test_what_children_write_while_their_parent_has_no_worker_is_no_lost_time():
    _, root = tree(*STORY[:6], of_child(9_000, llm_call=answer(20, 30, latency_ms=8_900)), taken_over(15_100, 2))
    assert takeovers(root) == [("attempt 2", 9_000, 6_100)]


def test_a_childs_lost_worker_is_a_row_of_the_child():
    _, root = tree(*STORY[:8], at(15_150, child=ChildStep(child_task_id=CHILD, event=taken_over(15_150, 2, CHILD))))
    child = next(one for one in root.below if one.kind == "task")
    assert takeovers(child) == takeovers(root) == [("attempt 2", 150, 15_000)]


def noticed(ms, kind, detail="", task_id=ROOT, attempt=1):
    return at(ms, task_id, notice=RunnerNotice(kind=kind, detail=detail), attempt=attempt)


def handovers(root):
    return [(one.name, one.start_ms - ORIGIN, one.duration_ms) for one in nodes(root) if one.kind == "handover"]


def test_a_task_that_was_handed_back_has_a_row_from_its_last_entry_to_the_next_claim():
    _, root = tree(
        at(5, started=TaskStarted(agent_id="chef"), attempt=1),
        at(100, llm_call=answer(10, 0, latency_ms=95), attempt=1),
        noticed(2_100, NOTICE_KIND_RESUMED, "goes on"),
        noticed(2_101, NOTICE_KIND_VERSION_CHANGED, "begun by version 1.0.0, goes on with 2.0.0"),
        at(2_200, llm_call=answer(10, 0, latency_ms=90), attempt=1),
        noticed(3_200, NOTICE_KIND_RESUMED, "goes on"),
        at(3_300, result=result(0), attempt=1),
    )
    assert handovers(root) == [("attempt 1", 100, 2_000), ("attempt 1", 2_200, 1_000)]
    assert root.notes == ["handed back", "begun by version 1.0.0, goes on with 2.0.0"]
    assert (root.takeovers, root.below[1].status) == (0, "handed back")


def test_a_task_that_waited_is_none_that_was_handed_back():
    waits, goes_on = noticed(50, NOTICE_KIND_PARKED), noticed(9_000, NOTICE_KIND_RESUMED)
    assert handovers(tree(*STORY[:4], waits, goes_on)[1]) == []
    assert handovers(tree(*STORY[:4], waits, goes_on, noticed(9_500, NOTICE_KIND_RESUMED))[1]) == [
        ("attempt 1", 9_000, 500)
    ]
    lost_meanwhile = (waits, taken_over(8_000, 2), noticed(9_000, NOTICE_KIND_RESUMED, attempt=2))
    assert handovers(tree(*STORY[:4], *lost_meanwhile)[1]) == [("attempt 2", 8_000, 1_000)]
    gap = at(200, gap=StreamGap(from_sequence=3, to_sequence=7))
    assert handovers(tree(*STORY[:4], gap, goes_on)[1]) == [], "nobody knows why"


def test_a_failure_is_told_by_its_reason():
    failed = result(0, FINISH_REASON_ERROR)
    failed.status = TASK_STATUS_FAILED
    failed.error.CopyFrom(OutputSchemaViolatedError("the answer 'Bern' does not fit").to_status())
    task, root = tree(at(5, started=TaskStarted(agent_id="chef")), at(90, result=failed))
    assert told(task, root)["tree"]["notes"] == ["OUTPUT_SCHEMA_VIOLATED"]
    assert next(rows(root, ORIGIN))[5] == "failed, OUTPUT_SCHEMA_VIOLATED"


def test_a_tools_failure_is_told_by_its_reason_and_a_models_by_how_often_it_was_tried():
    failed = result(0, FINISH_REASON_ERROR)
    failed.status = TASK_STATUS_FAILED
    failed.error.CopyFrom(ModelUnavailableError("it failed").to_status())
    broken = ToolResult(call_id="c1", outcome=TOOL_OUTCOME_ERROR, error=ToolFailedError("no flour").to_status())
    tried_again = at(60, notice=RunnerNotice(kind=NOTICE_KIND_RETRIED))
    _, root = tree(at(10, tool_call=ToolCall(call_id="c1", tool="oven.heat")), at(20, tool_result=broken))
    assert [*rows(root, ORIGIN)][1][5] == "error, TOOL_FAILED"
    _, root = tree(tried_again, tried_again, at(90, result=failed))
    assert next(rows(root, ORIGIN))[5] == "failed, MODEL_UNAVAILABLE, its last model call was tried 3 times"


TRACE = "ab" * 16


class Tasks(TaskServiceServicer):
    """TaskService of some tasks, which have no journal."""

    def __init__(self):
        self.tasks = []

    async def GetTask(self, request, context):  # noqa: N802 - an RPC's name
        for task in self.tasks:
            if task.task_id == request.task_id:
                return task
        raise TaskNotFoundError(f"there is no task {request.task_id}")

    async def ListTasks(self, request, context):  # noqa: N802 - an RPC's name
        assert (request.roots_only, request.principal) == (True, "ada")
        return ListTasksResponse(tasks=self.tasks[: request.page_size])


@pytest.fixture
def tasks():
    return Tasks()


class TestTraceId:
    async def test_the_task_of_a_trace_is_found_by_its_id(self, edge, tasks):
        tasks.tasks = [TaskResponse(task_id="t0", trace_id="cd" * 16), TaskResponse(task_id="t1", trace_id=TRACE)]
        for name in (TRACE, TRACE.upper(), "t1"):
            task, _ = await read(edge, name, "ada")
            assert task.task_id == "t1"

    async def test_a_task_that_is_called_like_a_trace_is_that_task(self, edge, tasks):
        tasks.tasks = [TaskResponse(task_id="t1", trace_id=TRACE), TaskResponse(task_id=TRACE)]
        assert (await read(edge, TRACE, "ada"))[0].task_id == TRACE

    async def test_a_trace_without_a_task_is_told_as_one_and_a_task_that_is_none_as_that(self, edge):
        with pytest.raises(TaskNotFoundError, match="is the id of a trace, and none of your 200 newest tasks"):
            await read(edge, TRACE, "ada")
        with pytest.raises(TaskNotFoundError, match=f"there is no task {TRACE[:-1]}"):
            await read(edge, TRACE[:-1], "ada")

    async def test_of_a_trace_with_several_tasks_one_has_to_be_named(self, edge, tasks):
        tasks.tasks = [TaskResponse(task_id=f"t{number}", trace_id=TRACE) for number in range(7)]
        with pytest.raises(InvalidRequestError, match=f"tasks are of trace {TRACE}: t0, t1, t2, t3, t4 and 2 more"):
            await read(edge, TRACE, "ada")


def test_time_that_nobody_knows_of_is_no_row():
    gap = at(200, gap=StreamGap(from_sequence=3, to_sequence=7))
    gap.sequence = 0
    _, root = tree(*STORY[:4], gap, taken_over(15_100, 2))
    assert (takeovers(root), root.takeovers) == ([], 1)


STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 60_000)), max_size=12)


@given(STEPS)
def test_the_rows_of_a_task_add_up_to_what_it_took(steps):
    now, attempt, events = 0, 1, [at(0, started=TaskStarted(agent_id="chef"), attempt=1)]
    for is_lost, took_ms in steps:
        now, attempt = now + took_ms, attempt + is_lost
        answered = at(now, llm_call=answer(2, 0, latency_ms=took_ms), attempt=attempt)
        events.append(taken_over(now, attempt) if is_lost else answered)
    _, root = tree(*events, at(now, result=result(0), attempt=attempt))
    assert sum(one.duration_ms for one in root.below) == root.duration_ms == now


KINDS = [*STORY, at(50, tool_call=ToolCall(call_id="c1", tool="oven.heat", version="1.0.0"))]


@pytest.mark.parametrize("stranger", [at(1, "other", llm_call=answer(5, 5)), at(1, heartbeat={})])
def test_events_of_strangers_are_left_out(stranger):
    assert tree(stranger)[1].below == []


@given(st.lists(st.sampled_from(KINDS), max_size=30))
def test_every_line_is_drawn_once_whatever_the_journal_holds(events):
    _, root = tree(*events)
    assert len([*rows(root, ORIGIN)]) == len([*nodes(root)])
    assert all(node.duration_ms is None or node.duration_ms >= 0 for node in nodes(root))
