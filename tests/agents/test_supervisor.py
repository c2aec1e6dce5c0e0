"""Delegation over real gRPC: children at other agents, waited for or parked for, stopped with their parent."""

import asyncio
import json

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.agent import Agent
from meshwright.agents.reader import Reader
from meshwright.agents.task import TaskName, leaf
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_PARKED,
    NOTICE_KIND_RESUMED,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_INVALID_ARGUMENTS,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_DEADLINE,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskRequest,
)
from meshwright.gen.agents.v1.task_service_pb2 import ListTasksRequest


def asking(*agents, prompt="Help.", **reply):
    """A reply that delegates, then a last word."""
    calls = [{"name": f"ask.{agent}", "arguments": {"prompt": prompt}} for agent in agents]
    return [{"tool_calls": calls, **reply}, {"text": "All done."}]


@pytest.fixture
def start(mesh, dial, gate):
    """Starts an agent that plays replies and connects to it."""

    async def started(name, *replies, delegates=(), **settings):
        author = Agent(name, f"I am {name}.", tools=[gate.tool], delegates=delegates, skills=["skill"])
        script = json.dumps({"agents": {name: list(replies)}})
        return dial(await mesh.agent(author, script=script, **settings))

    return started


HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}


@pytest.fixture
def parking_soon(monkeypatch):
    monkeypatch.setattr("meshwright.agents.parking.PARK_AFTER_S", 0.05)


async def tasks_of(client, **filters):
    return {task.task_id: task for task in (await client.tasks.ListTasks(ListTasksRequest(**filters))).tasks}


async def test_two_agents_work_at_once_and_their_answers_are_read_in_order(start, gate, kinds):
    for name in ("left", "right"):
        await start(name, HOLD, {"text": f"I am {name}."})
    boss = await start("boss", *asking("left", "right"), delegates=["left", "right"])
    running = asyncio.create_task(boss.steps(task_id="t1"))
    await gate.holds(2)
    gate.open()
    events = await running
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    happened = kinds(events)
    assert happened[:4] == ["started", "llm_call", "delegation", "delegation"]
    assert happened[-2:] == ["llm_call", "result"]
    for kind in ("started", "llm_call", "tool_call", "tool_result", "result"):
        assert happened.count(f"child.{kind}") == (4 if kind == "llm_call" else 2)
    result = events[-1].result
    assert (result.status, result.output, result.steps_used) == (TASK_STATUS_COMPLETED, "All done.", 2)
    children = await tasks_of(boss, parent_task_id="t1")
    assert {child.agent_id for child in children.values()} == {"left", "right"}
    assert all(child.parent_task_id == "t1" for child in children.values())
    spent = sum(child.tokens_used for child in children.values())
    own = sum(leaf(event).llm_call.usage.input_tokens + leaf(event).llm_call.usage.output_tokens for event in events)
    assert result.tokens_used == own > spent > 0
    assert (result.usage.model_calls, result.tool_calls) == (6, 2)
    assert (await boss.get("t1")).usage == result.usage


async def test_a_child_gets_its_share_of_the_budget_and_the_rest_of_the_time(start, store):
    await start("helper", {"text": "Yes."})
    boss = await start(
        "boss", *asking("helper", usage={"input_tokens": 100, "output_tokens": 100}), delegates=["helper"]
    )
    events = await boss.steps(token_budget=4_200, timeout=Duration(seconds=60))
    (delegation,) = [event.delegation for event in events if event.HasField("delegation")]
    assert delegation.granted_tokens == 2_000
    child = (await Reader(store).record(TaskName("default", "default", delegation.child_task_id))).request
    assert (child.token_budget, child.timeout.seconds, child.prompt) == (2_000, 60, "Help.")


async def test_text_of_a_child_passes_through_its_parents_stream(start):
    await start("helper", {"text": "slowly spoken words", "latency_ms": 300})
    boss = await start("boss", *asking("helper"), delegates=["helper"])
    frames = [event async for event in boss.agent.StreamSteps(TaskRequest(prompt="Go."))]
    deltas = [event for event in frames if leaf(event).HasField("delta")]
    below = [event for event in deltas if event.HasField("child")]
    assert "".join(leaf(event).delta.text for event in below) == "slowly spoken words"
    assert {event.sequence for event in deltas} == {0}


async def test_events_of_a_child_show_while_the_parents_own_tools_still_run(start, gate, until):
    await start("helper", {"text": "Yes."})
    replies = asking("helper")
    replies[0]["tool_calls"] += HOLD["tool_calls"]
    boss = await start("boss", *replies, delegates=["helper"])
    stream = boss.agent.StreamSteps(TaskRequest(prompt="Go."))
    ended = await until(stream, lambda event: leaf(event).HasField("result"))
    assert ended.HasField("child")
    assert gate.waiting == 1
    gate.open()
    assert (await until(stream, lambda event: event.HasField("result"))).result.output == "All done."


async def test_a_child_that_fails_is_an_outcome_that_its_parent_reads(start):
    await start("helper", {"error": {"code": "UNAVAILABLE", "message": "no model"}})
    boss = await start("boss", *asking("helper"), delegates=["helper"])
    events = await boss.steps()
    (ended,) = [leaf(event).result for event in events if leaf(event).HasField("result") and event.HasField("child")]
    assert ended.status == TASK_STATUS_FAILED
    assert events[-1].result.output == "All done."


async def test_calls_that_cannot_be_delegated_are_told_to_the_model(start, monkeypatch):
    monkeypatch.setattr("meshwright.agents.supervisor.PATIENCE_S", 0.0)
    calls = [
        {"name": "ask.away", "arguments": {"prompt": "Help."}},
        {"name": "ask.away", "arguments": {"prompt": " "}},
        {"name": "ask.stranger", "arguments": {"prompt": "Help."}},
    ]
    boss = await start("boss", {"tool_calls": calls}, {"text": "Alone."}, delegates=["away"])
    events = await boss.steps()
    outcomes = {event.tool_result.call_id: event.tool_result for event in events if event.HasField("tool_result")}
    assert [outcomes[f"call_0_{n}"].outcome for n in range(3)] == [
        TOOL_OUTCOME_ERROR,
        TOOL_OUTCOME_INVALID_ARGUMENTS,
        TOOL_OUTCOME_DENIED,
    ]
    assert MeshError.from_status(outcomes["call_0_0"].error).reason == "AGENT_NOT_FOUND"
    assert events[-1].result.output == "Alone."


async def test_a_child_that_waits_for_its_agent_is_told_once_and_not_at_each_try(start, mesh, monkeypatch, becomes):
    tries = []
    monkeypatch.setattr("meshwright.agents.supervisor.RETRY_S", 0.02)
    boss = await start("boss", *asking("late"), delegates=["late"])
    supervisor = mesh.agents["boss"].supervisor
    card = supervisor._card

    async def noted(agent_id):
        tries.append(agent_id)
        return await card(agent_id)

    monkeypatch.setattr(supervisor, "_card", noted)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(boss.run())
        await becomes(lambda: len(tries) >= 5)
        await start("late", {"text": "Here."})
        assert (await running).output == "All done."
    assert [(line["agent"]) for line in lines if line["event"] == "child_waits"] == ["late"]


async def test_too_little_budget_for_a_child_is_told_to_the_model(start):
    await start("helper", {"text": "Yes."})
    boss = await start("boss", *asking("helper"), delegates=["helper"])
    events = await boss.steps(token_budget=1_000)
    (refused,) = [event.tool_result for event in events if event.HasField("tool_result")]
    assert refused.outcome == TOOL_OUTCOME_DENIED
    assert "budget" in refused.error.message


async def test_delegation_goes_five_levels_deep_and_no_deeper(start):
    deep = await start("deep", *asking("deep"), delegates=["deep"])
    events = await deep.steps(task_id="t1", token_budget=32_768)
    assert events[-1].result.status == TASK_STATUS_COMPLETED
    tasks = await tasks_of(deep)
    assert len(tasks) == 6
    assert all(task.status == TASK_STATUS_COMPLETED for task in tasks.values())
    deepest, depth = events[0], 0
    for event in events:
        nested, level = event, 0
        while nested.HasField("child"):
            nested, level = nested.child.event, level + 1
        if level >= depth and nested.HasField("tool_result"):
            deepest, depth = nested, level
    assert (depth, deepest.tool_result.outcome) == (5, TOOL_OUTCOME_DENIED)


@pytest.mark.usefixtures("parking_soon")
async def test_one_worker_that_delegates_to_itself_parks_and_completes(start, kinds):
    single = await start("single", *asking("single", "single"), delegates=["single"], concurrency=1)
    events = await single.steps(task_id="t1", token_budget=4_000)
    assert events[-1].result.status == TASK_STATUS_COMPLETED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    notices = [event.notice.kind for event in events if event.HasField("notice")]
    assert notices == [NOTICE_KIND_PARKED, NOTICE_KIND_RESUMED]
    result = events[-1].result
    assert (result.attempt, kinds(events).count("llm_call")) == (1, 2)


@pytest.mark.usefixtures("parking_soon")
async def test_a_parked_parent_costs_no_place_and_wakes_with_its_last_child(start, gate, becomes, mesh):
    await start("helper", HOLD, {"text": "Yes."})
    boss = await start("boss", *asking("helper", "helper"), delegates=["helper"], concurrency=1)
    await boss.submit(task_id="t1")
    await gate.holds(2)
    await becomes(lambda: mesh.agents["boss"].worker.running == 0)
    gate.open()
    response = await boss.ended("t1")
    assert (response.output, response.attempt) == ("All done.", 1)


class TestCancel:
    @pytest.mark.parametrize("is_parked", [False, True])
    async def test_a_cancelled_task_takes_its_children_along(self, start, gate, is_parked, monkeypatch, becomes, mesh):
        monkeypatch.setattr("meshwright.agents.parking.PARK_AFTER_S", 0.02 if is_parked else 60)
        await start("helper", HOLD, {"text": "Yes."}, concurrency=1)
        boss = await start("boss", *asking("helper", "helper"), delegates=["helper"])
        await boss.submit(task_id="t1")
        await gate.holds(1)  # the other one waits in the queue
        if is_parked:
            await becomes(lambda: mesh.agents["boss"].worker.running == 0)
        await boss.cancel("t1", "enough")
        assert (await boss.ended("t1")).status == TASK_STATUS_CANCELLED
        children = await tasks_of(boss, parent_task_id="t1")
        assert len(children) == 2
        for task_id in children:
            assert (await boss.ended(task_id)).status == TASK_STATUS_CANCELLED
        await gate.holds(0)

    async def test_a_child_alone_is_cancelled_and_its_parent_goes_on(self, start, gate):
        await start("helper", HOLD, {"text": "Yes."})
        boss = await start("boss", *asking("helper"), delegates=["helper"])
        await boss.submit(task_id="t1")
        await gate.holds(1)
        (child,) = await tasks_of(boss, parent_task_id="t1")
        await boss.cancel(child)
        response = await boss.ended("t1")
        assert (response.status, response.output) == (TASK_STATUS_COMPLETED, "All done.")

    async def test_a_parent_whose_time_is_over_takes_its_children_along(self, start, gate):
        await start("helper", HOLD, {"text": "Yes."})
        boss = await start("boss", *asking("helper"), delegates=["helper"])
        response = await boss.run(task_id="t1", timeout=Duration(nanos=500_000_000))
        assert (response.status, response.finish_reason) == (TASK_STATUS_FAILED, FINISH_REASON_DEADLINE)
        (child,) = await tasks_of(boss, parent_task_id="t1")
        assert (await boss.ended(child)).status in (TASK_STATUS_CANCELLED, TASK_STATUS_FAILED)
        await gate.holds(0)


async def test_a_task_delegates_even_after_the_deadline_of_the_call_that_brought_it(start):
    await start("helper", {"text": "Yes."})
    replies = asking("helper")
    replies[0]["latency_ms"] = 400
    boss = await start("boss", *replies, delegates=["helper"])
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await boss.agent.RunTask(TaskRequest(prompt="Go.", task_id="t1"), timeout=0.2)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    events = await boss.watch("t1")
    assert [event for event in events if event.HasField("tool_result")] == []
    assert events[-1].result.output == "All done."


async def test_a_registry_that_is_away_does_not_stop_a_delegation(start, mesh):
    await start("helper", {"text": "Yes."})
    boss = await start("boss", *asking("helper"), delegates=["helper"])
    assert (await boss.run()).output == "All done."
    await mesh.registry.stop()
    assert (await boss.run()).output == "All done."
