"""Acting: calls that leave no trace begin before their step is journaled; all others wait for the journal."""

import asyncio
import json

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.journal import Journal
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_ERROR, TOOL_OUTCOME_OK
from meshwright.gen.agents.v1.task_pb2 import DECISION_APPROVE, TASK_STATUS_COMPLETED, TaskRequest
from meshwright.registry import current_invocation, tool

DONE = {"text": "Done."}


@tool(effect="pure")
async def at_once(n: int) -> int:
    """Gives a number back."""
    if n < 0:
        raise ValueError("below nothing")
    return n


@tool(effect="idempotent")
async def noted(n: int) -> int:
    """Gives a number back, and leaves a trace."""
    return n


def calls(name, *arguments):
    return {"tool_calls": [{"name": name, "arguments": one} for one in arguments]}


@pytest.fixture
def agent(mesh, dial, gate):
    async def started(*replies, **rules):
        author = Agent("worker", "Work.", tools=[at_once, noted, gate.tool], **rules)
        return dial(await mesh.agent(author, script=json.dumps({"agents": {"default": list(replies)}})))

    return started


@pytest.fixture
def written(monkeypatch):
    """Collects the kinds of events that are written by one script."""
    scripts, append = [], Journal.append

    async def watched(self, claim, key, events, **facts):
        appended = await append(self, claim, key, events, **facts)
        scripts.append([event.WhichOneof("event") for event in events])
        return appended

    monkeypatch.setattr(Journal, "append", watched)
    return scripts


async def test_what_is_there_at_once_is_written_with_its_step(agent, written, kinds, numbers):
    client = await agent(calls("at_once", {"n": 1}, {"n": 2}), DONE)
    events = await client.steps()
    step = ["llm_call", "tool_call", "tool_call", "tool_result", "tool_result"]
    assert written == [step]
    assert kinds(events) == ["started", *step, "llm_call", "result"]
    assert numbers(events) == list(range(1, 9))
    assert [event.tool_result.result.number_value for event in events if event.HasField("tool_result")] == [1, 2]


async def test_a_tools_failure_is_there_at_once_as_well(agent, written, kinds):
    client = await agent(calls("at_once", {"n": -1}), DONE)
    (result,) = [event.tool_result for event in await client.steps() if event.HasField("tool_result")]
    assert (result.outcome, "below nothing" in result.error.message) == (TOOL_OUTCOME_ERROR, True)
    assert written == [["llm_call", "tool_call", "tool_result"]]


async def test_what_takes_longer_does_not_hold_up_its_step(agent, gate, written, kinds):
    client = await agent(calls("hold", {"key": "a"}), DONE)
    await client.submit(task_id="t1")
    await gate.holds()
    watching = asyncio.create_task(client.watch("t1"))
    while written != [["started"], ["llm_call", "tool_call"]]:
        await asyncio.sleep(0.01)
    gate.open()
    assert kinds(await watching) == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
    assert gate.calls == ["a"]


async def test_what_leaves_a_trace_is_journaled_first(agent, written):
    client = await agent(calls("noted", {"n": 1}), DONE)
    assert (await client.run()).status == TASK_STATUS_COMPLETED
    assert written == [["llm_call", "tool_call"], ["tool_result"]]


async def test_what_a_person_has_to_allow_is_not_begun(agent, gate):
    client = await agent(calls("hold", {"key": "a"}), DONE, approvals={"hold": "always"})
    await client.submit(task_id="t1")
    (pending,) = await client.asked("t1")
    assert gate.calls == []
    gate.open()
    await client.resolve("t1", pending, DECISION_APPROVE)
    assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED
    assert gate.calls == ["a"]


async def test_a_call_whose_task_is_cancelled_is_broken_off(agent, gate, becomes):
    client = await agent(calls("hold", {"key": "a"}), DONE)
    await client.submit(task_id="t1")
    await gate.holds()
    await client.cancel("t1")
    await gate.holds(0)


async def test_a_call_whose_step_cannot_be_written_is_broken_off(agent, gate, monkeypatch, becomes):
    client = await agent(calls("hold", {"key": "a"}), DONE)
    append = Journal.append

    async def failing(self, claim, key, events, **facts):
        if key.startswith("step:"):
            raise RuntimeError("no")
        return await append(self, claim, key, events, **facts)

    monkeypatch.setattr(Journal, "append", failing)
    assert (await client.run()).error.message.startswith("internal error")
    await gate.holds(0)
    assert gate.calls == ["a"]


async def test_a_tool_cannot_change_what_the_model_said(mesh, dial):
    @tool(effect="pure")
    async def spoil(items: list) -> bool:
        """Changes what it was given."""
        items[0].append("mine")
        return True

    author = Agent("worker", "Work.", tools=[spoil])
    script = {"agents": {"default": [calls("spoil", {"items": [["yours"]]}), DONE]}}
    client = dial(await mesh.agent(author, script=json.dumps(script)))
    events = await client.steps()
    (intent,) = [event.tool_call for event in events if event.HasField("tool_call")]
    (result,) = [event.tool_result for event in events if event.HasField("tool_result")]
    assert result.outcome == TOOL_OUTCOME_OK
    assert len(intent.arguments["items"][0]) == 1


async def test_how_far_a_tool_has_come_is_shown_and_not_kept(mesh, dial, numbers):
    @tool(effect="idempotent")
    async def load() -> str:
        """Loads, and says so."""
        current_invocation().progress(0.5, "half of it")
        await asyncio.sleep(0.3)
        return "loaded"

    author = Agent("worker", "Work.", tools=[load])
    script = json.dumps({"agents": {"default": [calls("load", {}), DONE]}})
    client = dial(await mesh.agent(author, script=script))
    events = [event async for event in client.agent.StreamSteps(TaskRequest(prompt="Go."))]
    (shown,) = [event for event in events if event.HasField("progress")]
    (intent,) = [event.tool_call for event in events if event.HasField("tool_call")]
    assert (shown.progress.fraction, shown.progress.message) == (0.5, "half of it")
    assert (shown.progress.call_id, shown.sequence, shown.step) == (intent.call_id, 0, 1)
    assert numbers(events) == list(range(1, 7))


async def test_a_tool_of_another_host_tells_how_far_it_has_come_as_well(mesh, dial):
    @tool(effect="pure")
    async def load() -> str:
        """Loads, and says so."""
        current_invocation().progress(-1, "at it")
        await asyncio.sleep(0.3)
        return "loaded"

    await mesh.agent(Agent("loader", "Load.", tools=[load]), script=json.dumps({"agents": {"default": [DONE]}}))
    author = Agent("worker", "Work.", tools=["load"])
    script = json.dumps({"agents": {"default": [calls("load", {}), DONE]}})
    client = dial(await mesh.agent(author, script=script))
    events = [event async for event in client.agent.StreamSteps(TaskRequest(prompt="Go."))]
    (shown,) = [event for event in events if event.HasField("progress")]
    assert (shown.progress.fraction, shown.progress.message) == (-1, "at it")
