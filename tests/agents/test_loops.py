"""Loops: which rounds count as the same, what the model is told, and where it ends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.agent import Agent
from meshwright.agents.loops import ENDED_AFTER, TOLD, TOLD_AFTER, Repeats
from meshwright.core.errors import LoopDetectedError, MeshError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_LOOPING
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_ERROR,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskRequest,
)
from meshwright.registry import tool

seen = []


@tool(effect="pure")
def echo(n: int) -> int:
    """Gives a number back."""
    seen.append(n)
    return n


@tool(effect="pure")
def count() -> int:
    """Counts its own calls."""
    seen.append(0)
    return len(seen)


def calls(*arguments, name="echo"):
    return {"tool_calls": [{"name": name, "arguments": one} for one in arguments]}


ONE, TWO, DONE = calls({"n": 1}), calls({"n": 2}), {"text": "Done."}


class TestRepeats:
    @given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), max_size=12))
    def test_rounds_are_counted_in_which_every_call_of_the_last_one_was_made(self, rounds):
        repeats = Repeats()
        for made in rounds:
            repeats.add((call, "out") for call in made)
        expected = 0
        for made in reversed(rounds):
            if not rounds[-1] <= made:
                break
            expected += 1
        assert repeats.rounds == expected

    def test_another_outcome_is_something_new(self):
        repeats = Repeats()
        for outcome in "xxyyxx":
            repeats.add([("call", outcome)])
        assert repeats.rounds == 2

    def test_the_same_call_twice_in_one_answer_is_one_round(self):
        repeats = Repeats()
        repeats.add([("call", "out")] * 8)
        assert repeats.rounds == 1

    def test_it_is_told_once_and_then_ended(self):
        repeats, told = Repeats(), []
        for number in range(1, ENDED_AFTER):
            repeats.add([("call", "out")])
            if repeats.notice():
                told.append(number)
        assert told == [TOLD_AFTER]
        repeats.add([("call", "out")])
        with pytest.raises(LoopDetectedError):
            repeats.notice()


@pytest.fixture
def agent(mesh, dial):
    """Starts an agent on a script and connects to it."""

    async def started(*replies):
        seen.clear()
        author = Agent("worker", "Work.", tools=[echo, count])
        return dial(await mesh.agent(author, script=json.dumps({"agents": {"default": list(replies)}})))

    return started


def looping(events):
    return [event.notice for event in events if event.HasField("notice") and event.notice.kind == NOTICE_KIND_LOOPING]


async def test_a_model_that_does_not_listen_is_stopped(agent, kinds):
    client = await agent(ONE)
    events = await client.steps()
    result = events[-1].result
    assert (result.status, result.finish_reason) == (TASK_STATUS_FAILED, FINISH_REASON_ERROR)
    assert MeshError.from_status(result.error).reason == "LOOP_DETECTED"
    call = ["llm_call", "tool_call", "tool_result"]
    assert kinds(events) == ["started", *call * 3, "notice", *call * 2, "result"]
    assert seen == [1] * 5


async def test_a_model_that_listens_goes_on(agent, overheard):
    client = await agent(ONE, ONE, ONE, TWO, ONE, ONE, DONE)
    prompts = overheard("worker")
    events = await client.steps()
    assert events[-1].result.status == TASK_STATUS_COMPLETED
    (notice,) = looping(events)
    assert (prompts[3].messages[-1].role, prompts[3].messages[-1].text, notice.detail) == ("user", TOLD, TOLD)


async def test_calls_that_are_refused_the_same_way_are_a_loop_too(agent):
    client = await agent(calls({}, name="nothing.here"))
    response = await client.run()
    assert MeshError.from_status(response.error).reason == "LOOP_DETECTED"
    assert response.steps_used == ENDED_AFTER


async def test_calls_with_other_outcomes_and_other_rounds_are_none(agent):
    client = await agent(*[calls({}, name="count")] * 6, *[ONE, TWO] * 3, DONE)
    events = await client.steps(max_steps=25)
    assert (events[-1].result.status, looping(events)) == (TASK_STATUS_COMPLETED, [])


@pytest.mark.parametrize("rounds", [3, 4])
async def test_a_successor_counts_on_from_the_journal(agent, mesh, journal, made, store, kinds, rounds):
    lived = await agent(ONE)
    events = await lived.steps(task_id="original")
    await mesh.stop(mesh.agents["worker"])
    prefix = [event for event in events if 0 < event.step <= rounds or event.HasField("started")]
    prefix = [event for event in prefix if not (rounds == 3 and event.HasField("notice"))]
    for event in prefix:
        event.ClearField("task_id")
        event.ClearField("sequence")
    task = made.task(request=TaskRequest(prompt="Go.", agent_id="worker", max_steps=10, token_budget=8192))
    await journal.accept(task, claim=False)
    claim = (await journal.claim(0, "worker")).claim
    await journal.append(claim, "k", prefix)
    await store.client.zadd(partition_key(0, "leases"), {task.name.ref: 1})
    await journal.sweep(0)
    successor = await agent(ONE)
    response = await successor.ended("t1")
    assert (response.attempt, response.steps_used) == (2, ENDED_AFTER)
    assert MeshError.from_status(response.error).reason == "LOOP_DETECTED"
    assert len(seen) == ENDED_AFTER - rounds
    assert len(looping(await successor.watch("t1"))) == 1
