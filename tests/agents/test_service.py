"""AgentService over real gRPC: run a task, stream its steps, tell how the agent is."""

import asyncio

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.feed import Feeds
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HEALTH_STATUS_DEGRADED,
    HEALTH_STATUS_NOT_SERVING,
    HEALTH_STATUS_SERVING,
    HealthRequest,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_RUNNING,
    TaskRequest,
)
from meshwright.registry import tool


@tool(effect="pure")
def add(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


SCRIPT = """
agents:
  default:
    - tool_calls: [{name: add, arguments: {a: 1, b: 2}}]
    - text: It is 3.
"""
SLOW = """
agents:
  default:
    - {text: one two three, latency_ms: 600}
"""


@pytest.fixture
async def adder(mesh, dial):
    return dial(await mesh.agent(Agent("adder", "Add.", tools=[add]), script=SCRIPT))


@pytest.fixture
async def thinker(mesh, dial):
    return dial(await mesh.agent(Agent("thinker", "Think."), script=SLOW))


async def test_run_task_answers_with_the_whole_task(adder):
    response = await adder.run("1 + 2?")
    assert response.status == TASK_STATUS_COMPLETED
    assert response.finish_reason == FINISH_REASON_STOP
    assert response.output == "It is 3."
    assert (response.steps_used, response.tool_calls) == (2, 1)
    assert response.tokens_used == response.usage.input_tokens + response.usage.output_tokens > 0
    assert (response.agent_id, response.agent_version, response.attempt) == ("adder", "1.0.0", 1)


async def test_stream_steps_numbers_its_events_without_gap_and_ends_with_the_result(adder, kinds):
    events = await adder.steps("1 + 2?")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events) == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
    assert {event.task_id for event in events} == {events[0].task_id}
    assert [event.attempt for event in events] == [1] * 6
    assert [event.step for event in events] == [0, 1, 1, 1, 2, 2]


async def test_every_way_in_does_the_same_work(adder, kinds):
    """RunTask, StreamSteps and SubmitTask with WatchTask: one task each, alike in events, output and costs."""
    ran = await adder.run("1 + 2?")
    streamed = await adder.steps("1 + 2?")
    submitted = await adder.submit("1 + 2?")
    watched = await adder.watch(submitted.task_id)
    assert kinds(streamed) == kinds(watched) == kinds(await adder.watch(ran.task_id))
    for other in (streamed[-1].result, watched[-1].result, await adder.get(submitted.task_id)):
        assert other.output == ran.output
        assert other.usage == ran.usage
        assert (other.steps_used, other.tokens_used, other.last_sequence) == (2, ran.tokens_used, 6)


async def test_the_result_of_a_stream_is_what_get_task_tells(adder):
    result = (await adder.steps("1 + 2?"))[-1].result
    told = await adder.get(result.task_id)
    assert told.HasField("expire_time")
    told.ClearField("expire_time")
    assert told == result


async def test_the_accepted_task_is_named_in_initial_metadata(adder):
    request = TaskRequest(prompt="1 + 2?", task_id="mine")
    for method in (adder.agent.RunTask, adder.agent.StreamSteps):
        call = method(request)
        assert dict(await call.initial_metadata())["x-task-id"] == "mine"
        call.cancel()
    anonymous = adder.agent.RunTask(TaskRequest(prompt="1 + 2?"))
    named = dict(await anonymous.initial_metadata())["x-task-id"]
    assert (await anonymous).task_id == named


async def test_the_idempotency_key_names_the_task(adder):
    metadata = (("idempotency-key", "order-7"),)
    first = await adder.agent.RunTask(TaskRequest(prompt="1 + 2?"), metadata=metadata)
    second = await adder.agent.RunTask(TaskRequest(prompt="1 + 2?"), metadata=metadata)
    assert first.task_id == "order-7"
    assert first == second


async def test_duplicates_attach_to_the_first_task(thinker, kinds):
    responses = await asyncio.gather(*(thinker.run(task_id="t1") for _ in range(5)))
    assert all(response == responses[0] for response in responses)
    assert kinds(await thinker.steps(task_id="t1")) == ["started", "llm_call", "result"]
    assert responses[0].attempt == 1


async def test_another_request_under_the_same_id_is_refused(adder, refusal):
    await adder.run("1 + 2?", task_id="t1")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await adder.run("1 + 3?", task_id="t1")
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert refusal(refused.value).reason == "TASK_CONFLICT"


@pytest.mark.parametrize(("field", "value"), [("max_steps", 26), ("token_budget", 32_769), ("prompt", "")])
async def test_a_limit_that_is_broken_is_named(adder, refusal, field, value):
    for method in (adder.run, adder.steps, adder.submit):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(**{field: value})
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal(refused.value).fields) == {field}


async def test_an_agent_that_is_not_here_is_not_found(adder, refusal):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await adder.run(agent_id="nobody")
    assert refusal(refused.value).reason == "AGENT_NOT_FOUND"


async def test_a_client_that_breaks_off_leaves_the_task_running(thinker):
    calls = [
        thinker.agent.RunTask(TaskRequest(prompt="Go.", task_id="t1")),
        thinker.agent.StreamSteps(TaskRequest(prompt="Go.", task_id="t1")),
    ]
    await calls[1].initial_metadata()  # it is accepted
    for call in calls:
        call.cancel()
    assert (await thinker.get("t1")).status == TASK_STATUS_RUNNING
    assert (await thinker.ended("t1")).output == "one two three"


async def test_a_deadline_ends_the_wait_and_names_the_task_which_goes_on(thinker, refusal):
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await thinker.agent.RunTask(TaskRequest(prompt="Go.", task_id="t1"), timeout=0.3)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert refusal(late.value).metadata == {"task_id": "t1"}
    assert (await thinker.get("t1")).status == TASK_STATUS_RUNNING
    response = await thinker.ended("t1")
    assert (response.status, response.attempt) == (TASK_STATUS_COMPLETED, 1)


async def test_text_passes_while_it_is_written_and_carries_no_number(thinker):
    call = thinker.agent.StreamSteps(TaskRequest(prompt="Go."))
    events = [event async for event in call]
    deltas = [event for event in events if event.HasField("delta")]
    assert "".join(event.delta.text for event in deltas) == "one two three"
    assert [event.sequence for event in deltas] == [0] * len(deltas)
    assert events.index(deltas[-1]) < len(events) - 2


async def test_a_stream_resumes_after_the_last_event_id(adder):
    await adder.run("1 + 2?", task_id="t1")
    request = TaskRequest(prompt="1 + 2?", task_id="t1")
    for sent, expected in (("4", [5, 6]), ("6", []), ("nonsense", [1, 2, 3, 4, 5, 6]), ("9" * 30, [1, 2, 3, 4, 5, 6])):
        call = adder.agent.StreamSteps(request, metadata=(("last-event-id", sent),))
        assert [event.sequence async for event in call] == expected
    call = adder.agent.StreamSteps(request, metadata=(("last-event-id", "9" * 20),))
    assert [event.sequence async for event in call] == []


@pytest.fixture
def beating(monkeypatch):
    """Lets agents that are started from here on send heartbeats after 50 ms."""
    monkeypatch.setitem(Feeds.__init__.__kwdefaults__, "heartbeat_s", 0.05)


async def test_a_silent_stream_is_kept_open_by_heartbeats(beating, thinker):
    request = TaskRequest(prompt="Go.", task_id="t1")
    frames = [event async for event in thinker.agent.StreamSteps(request)]
    beats = [event.heartbeat for event in frames if event.HasField("heartbeat")]
    assert {beat.last_sequence for beat in beats} == {1}
    await thinker.submit(task_id="t2")
    call = thinker.agent.StreamSteps(TaskRequest(prompt="Go.", task_id="t2"), metadata=(("last-event-id", "1"),))
    frames = [event async for event in call]
    assert {event.heartbeat.last_sequence for event in frames if event.HasField("heartbeat")} == {1}
    assert [event.sequence for event in frames if event.sequence] == [2, 3]


class TestHealth:
    async def test_an_agent_tells_what_it_depends_on(self, adder):
        health = await adder.agent.Health(HealthRequest())
        assert health.status == HEALTH_STATUS_SERVING
        assert (health.agent_id, health.version, health.running_tasks, health.queued_tasks) == ("adder", "1.0.0", 0, 0)
        assert [dependency.name for dependency in health.dependencies][:2] == ["store", "registry"]
        assert len(health.contract_digest) == 64

    async def test_another_agents_health_is_not_known_here(self, adder, refusal):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await adder.agent.Health(HealthRequest(agent_id="other"))
        assert refusal(refused.value).reason == "AGENT_NOT_FOUND"

    async def test_running_and_queued_tasks_are_counted(self, mesh, dial, becomes):
        client = dial(await mesh.agent(Agent("single", "Think."), script=SLOW, concurrency=1))
        for number in range(3):
            await client.submit(task_id=f"t{number}")

        async def is_busy():
            health = await client.agent.Health(HealthRequest())
            return (health.running_tasks, health.queued_tasks) == (1, 2)

        await becomes(is_busy)

    async def test_without_its_registry_an_agent_is_degraded_and_draining_it_serves_no_more(self, mesh, dial):
        process = await mesh.agent(Agent("adder", "Add.", tools=[add]), script=SCRIPT)
        client = dial(process)
        await mesh.registry.stop()
        assert (await client.agent.Health(HealthRequest())).status == HEALTH_STATUS_DEGRADED
        assert (await client.run("1 + 2?")).output == "It is 3."
        process.health.is_draining = True
        health = await client.agent.Health(HealthRequest())
        assert (health.status, health.draining) == (HEALTH_STATUS_NOT_SERVING, True)
