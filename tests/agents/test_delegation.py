"""How far delegation goes: width, cycles, children that fail, and what their parents read."""

import asyncio
import json

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.models.model import Answer, Usage
from meshwright.agents.wording import child_text
from meshwright.core.errors import MeshError, ModelRejectedError, SetupError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_DENIED, TOOL_OUTCOME_ERROR
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import ListTasksRequest

HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}
FAILS = {"error": {"code": "FAILED_PRECONDITION", "message": "the key is wrong"}}


def asking(*agents, **reply):
    """A reply that delegates; prompts differ."""
    calls = [
        {"name": f"ask.{agent}", "arguments": {"prompt": f"Help {number}."}} for number, agent in enumerate(agents)
    ]
    return {"tool_calls": calls, **reply}


DONE = {"text": "All done."}


class Moody:
    """A model that fails so many times in its life, then answers."""

    provider = name = "moody"

    def __init__(self, failures=1):
        self.failures = failures
        self.calls = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, prompt, on_text):
        await self.may_answer.wait()
        self.calls += 1
        if self.calls <= self.failures:
            raise ModelRejectedError(f"mood {self.calls}")
        return Answer(f"answer {self.calls}", (), Usage(10, 10), self.provider, self.name)

    async def close(self):
        pass


@pytest.fixture
def start(mesh, dial, gate):
    """Starts an agent that plays replies and connects to it."""

    async def started(name, *replies, concurrency=16, **fields):
        author = Agent(name, f"I am {name}.", tools=[gate.tool], **fields)
        script = "" if "model" in fields else json.dumps({"agents": {name: list(replies)}})
        return dial(await mesh.agent(author, script=script, concurrency=concurrency))

    return started


@pytest.fixture
def parking_soon(monkeypatch):
    monkeypatch.setattr("meshwright.agents.parking.PARK_AFTER_S", 0.05)


def outcomes(events):
    return [event.tool_result for event in events if event.HasField("tool_result")]


def delegations(events):
    return [event.delegation for event in events if event.HasField("delegation")]


def reason_of(outcome):
    return MeshError.from_status(outcome.error).reason


async def tasks_of(client, **filters):
    return {task.task_id: task for task in (await client.tasks.ListTasks(ListTasksRequest(**filters))).tasks}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"max_children": 0}, "max_children must be 1..100"),
        ({"max_children": 101}, "max_children must be 1..100"),
        ({"max_children_at_once": 33}, "max_children_at_once must be 1..32"),
        ({"on_child_failure": "panic"}, "on_child_failure is tell, retry, other, not 'panic'"),
    ],
)
def test_a_rule_that_is_none_is_told_in_one_line(fields, problem):
    with pytest.raises(SetupError, match=problem):
        Agent("boss", "Lead.", **fields)


@pytest.mark.usefixtures("parking_soon")
async def test_children_of_one_answer_run_at_once_while_their_parent_holds_no_place(
    start, gate, becomes, mesh, overheard
):
    await start("helper", HOLD, {"text": "Yes."})
    boss = await start("boss", asking(*["helper"] * 8), DONE, delegates=["helper"], concurrency=1)
    prompts = overheard("boss")
    await boss.submit(task_id="t1", token_budget=32_768)
    await gate.holds(8)
    await becomes(lambda: mesh.agents["boss"].worker.running == 0)
    gate.open()
    response = await boss.ended("t1")
    assert (response.output, response.attempt, gate.most) == ("All done.", 1, 8)
    assert [message.text for message in prompts[1].messages[-8:]] == ["Yes."] * 8


class TestWidth:
    async def test_calls_beyond_the_width_of_a_step_are_refused_and_may_be_made_in_the_next(self, start):
        await start("helper", {"text": "Yes."})
        boss = await start(
            "boss", asking(*["helper"] * 3), asking("helper"), DONE, delegates=["helper"], max_children_at_once=2
        )
        events = await boss.steps(token_budget=32_768)
        (refused,) = outcomes(events)
        assert (refused.call_id, refused.outcome) == ("call_0_2", TOOL_OUTCOME_DENIED)
        assert reason_of(refused) == "FAN_OUT_EXCEEDED"
        assert "at most 2 tasks are handed out at once" in refused.error.message
        assert [one.call_id for one in delegations(events)] == ["call_0_0", "call_0_1", "call_1_0"]
        assert len({one.granted_tokens for one in delegations(events)[:2]}) == 1

    async def test_calls_beyond_what_a_task_may_hand_out_are_refused_for_good(self, start):
        await start("helper", {"text": "Yes."})
        replies = [asking("helper", "helper"), asking("helper", "helper"), asking("helper"), DONE]
        boss = await start("boss", *replies, delegates=["helper"], max_children=3)
        events = await boss.steps(token_budget=32_768)
        assert [refused.call_id for refused in outcomes(events)] == ["call_1_1", "call_2_0"]
        assert {reason_of(refused) for refused in outcomes(events)} == {"FAN_OUT_EXCEEDED"}
        assert all("at most 3 tasks" in refused.error.message for refused in outcomes(events))
        assert len(delegations(events)) == 3

    async def test_eight_are_handed_out_at_once_unless_said_otherwise(self, start):
        await start("helper", {"text": "Yes."})
        boss = await start("boss", asking(*["helper"] * 10), DONE, delegates=["helper"])
        events = await boss.steps(token_budget=32_768)
        assert (len(delegations(events)), len(outcomes(events))) == (8, 2)


class TestCycles:
    async def test_work_does_not_come_back_to_an_agent_that_waits_for_it(self, start, overheard, mesh):
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"])
        await start("helper", asking("boss"), {"text": "Alone, then."}, delegates=["boss"])
        prompts = overheard("helper")
        events = await boss.steps(task_id="t1", token_budget=32_768)
        assert events[-1].result.status == TASK_STATUS_COMPLETED
        assert len(await tasks_of(boss)) == 2
        below = [event.child.event for event in events if event.HasField("child")]
        (refused,) = outcomes(below)
        assert (refused.outcome, reason_of(refused)) == (TOOL_OUTCOME_ERROR, "DELEGATION_CYCLE")
        assert "boss -> helper -> boss" in refused.error.message
        assert "ask.boss" not in [tool.name for tool in prompts[0].tools]

    async def test_an_agent_that_allows_it_is_asked_again(self, start, overheard):
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"], recursive=True)
        await start("helper", asking("boss"), {"text": "Together."}, delegates=["boss"], recursive=True)
        prompts = overheard("helper")
        events = await boss.steps(task_id="t1", token_budget=32_768)
        assert events[-1].result.status == TASK_STATUS_COMPLETED
        assert len(await tasks_of(boss)) == 6  # as deep as it goes
        assert "ask.boss" in [tool.name for tool in prompts[0].tools]

    async def test_a_chain_is_kept_through_agents_in_between(self, start):
        boss = await start("boss", asking("middle"), DONE, delegates=["middle"])
        await start("middle", asking("helper"), DONE, delegates=["helper"])
        await start("helper", asking("boss"), DONE, delegates=["boss"])
        events = await boss.steps(task_id="t1", token_budget=32_768)
        assert events[-1].result.output == "All done."
        assert {task.agent_id for task in (await tasks_of(boss)).values()} == {"boss", "middle", "helper"}
        assert len(await tasks_of(boss)) == 3


class TestFailure:
    async def test_unless_said_otherwise_the_model_reads_it(self, start, overheard):
        await start("helper", model=Moody())
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"])
        prompts = overheard("boss")
        events = await boss.steps()
        assert len(delegations(events)) == 1
        assert json.loads(prompts[1].messages[-1].text) == {"error": {"reason": "MODEL_REJECTED", "message": "mood 1"}}

    @pytest.mark.parametrize("is_parked", [False, True])
    async def test_it_is_tried_once_more_as_another_child(
        self, start, overheard, is_parked, monkeypatch, gate, mesh, becomes
    ):
        monkeypatch.setattr("meshwright.agents.parking.PARK_AFTER_S", 0.02 if is_parked else 60)
        model = Moody()
        if is_parked:
            model.may_answer.clear()
        await start("helper", model=model)
        await start("slow", HOLD, {"text": "Slow."})
        agents = ["helper", "slow"] if is_parked else ["helper"]
        boss = await start("boss", asking(*agents), DONE, delegates=["helper", "slow"], on_child_failure="retry")
        prompts = overheard("boss")
        await boss.submit(task_id="t1", token_budget=32_768)
        if is_parked:  # the failure is read from the journal
            await gate.holds(1)
            await becomes(lambda: mesh.agents["boss"].worker.running == 0)
            model.may_answer.set()
            await becomes(lambda: model.calls == 2)  # while the other one is still at work
            assert gate.waiting == 1
        gate.open()
        assert (await boss.ended("t1")).output == "All done."
        assert prompts[1].messages[-len(agents)].text == "answer 2"
        first, *_, second = delegations(await boss.watch("t1"))
        assert (second.agent_id, second.replaces_task_id) == ("helper", first.child_task_id)
        assert second.call_id == first.call_id
        assert 0 < second.granted_tokens <= first.granted_tokens
        children = await tasks_of(boss, parent_task_id="t1")
        assert children[first.child_task_id].status == TASK_STATUS_FAILED
        assert children[second.child_task_id].status == TASK_STATUS_COMPLETED

    async def test_a_second_failure_is_what_the_model_reads(self, start, overheard):
        await start("helper", model=Moody(failures=9))
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"], on_child_failure="retry")
        prompts = overheard("boss")
        events = await boss.steps()
        assert len(delegations(events)) == 2
        assert json.loads(prompts[1].messages[-1].text)["error"]["message"] == "mood 2"

    async def test_what_somebody_cancelled_is_not_tried_again(self, start, gate):
        await start("helper", HOLD, DONE)
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"], on_child_failure="retry")
        await boss.submit(task_id="t1")
        await gate.holds(1)
        (child,) = await tasks_of(boss, parent_task_id="t1")
        await boss.cancel(child)
        assert (await boss.ended("t1")).output == "All done."
        (task,) = (await tasks_of(boss, parent_task_id="t1")).values()
        assert task.status == TASK_STATUS_CANCELLED

    @pytest.mark.parametrize("limits", [{"max_children": 1}, {}])
    async def test_where_no_second_child_can_be_the_failure_is_told(self, start, overheard, gate, limits):
        hungry = {"usage": {"input_tokens": 0 if limits else 700, "output_tokens": 0}, **HOLD}
        await start("helper", *([] if limits else [hungry]), FAILS)
        free = {"input_tokens": 0, "output_tokens": 0}
        replies = [asking("helper", usage=free), DONE]
        boss = await start("boss", *replies, delegates=["helper"], on_child_failure="retry", **limits)
        prompts = overheard("boss")
        gate.open()
        events = await boss.steps(token_budget=8_192 if limits else 1_500)
        assert len(delegations(events)) == 1
        (told,) = outcomes(events)
        assert reason_of(told) == "MODEL_REJECTED"
        assert json.loads(prompts[1].messages[-1].text)["error"]["message"] == "the key is wrong"

    async def test_another_delegate_with_a_skill_in_common_takes_it_over(self, start, overheard):
        await start("left", FAILS, skills=["Search", "law"])
        await start("cook", DONE, skills=["cooking"])
        await start("clerk", {"text": "I file."}, skills=["search"])
        await start("lawyer", {"text": "I know."}, skills=["search", "Law"])
        team = ["left", "cook", "clerk", "lawyer"]
        boss = await start("boss", asking("left"), DONE, delegates=team, on_child_failure="other")
        prompts = overheard("boss")
        events = await boss.steps(token_budget=32_768)
        assert [one.agent_id for one in delegations(events)] == ["left", "lawyer"]
        assert prompts[1].messages[-1].text == "I know."

    async def test_nobody_with_a_skill_in_common_leaves_the_failure(self, start, overheard):
        await start("left", FAILS, skills=["search"])
        await start("cook", DONE, skills=["cooking"])
        await start("shy", DONE, skills=["search"], callable_by=["left"])
        boss = await start("boss", asking("left"), DONE, delegates=["left", "cook", "shy"], on_child_failure="other")
        prompts = overheard("boss")
        events = await boss.steps(token_budget=32_768)
        assert len(delegations(events)) == 1
        assert json.loads(prompts[1].messages[-1].text)["error"]["reason"] == "MODEL_REJECTED"

    async def test_an_agent_that_has_left_is_replaced_too(self, start, mesh, monkeypatch, becomes):
        monkeypatch.setattr("meshwright.agents.supervisor.PATIENCE_S", 0.0)
        await start("left", {"text": "I am here."}, skills=["search"])
        await start("right", {"text": "So am I."}, skills=["search"])
        boss = await start("boss", asking("left"), DONE, delegates=["left", "right"], on_child_failure="other")
        assert [one.agent_id for one in delegations(await boss.steps())] == ["left"]
        await mesh.stop(mesh.agents["left"])
        await becomes(lambda: "left" not in mesh.agents["boss"].registry.known)
        events = await boss.steps()
        assert [one.agent_id for one in delegations(events)] == ["left", "right"]
        assert (events[-1].result.output, outcomes(events)) == ("All done.", [])


class TestPartialAnswers:
    async def test_an_answer_that_a_budget_cut_short_is_called_one(self, start, overheard):
        hungry = {"text": "Half of it.", "usage": {"input_tokens": 2_000, "output_tokens": 2_000}}
        await start("helper", hungry)
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"])
        prompts = overheard("boss")
        events = await boss.steps(token_budget=6_000)
        (ended,) = [event.child.event.result for event in events if event.child.event.HasField("result")]
        assert ended.finish_reason == FINISH_REASON_TOKEN_BUDGET_EXCEEDED
        told = prompts[1].messages[-1].text
        assert told == "(A partial answer: the agent had to stop early, TOKEN_BUDGET_EXCEEDED.)\n\nHalf of it."

    def test_an_answer_that_is_none_is_not_called_a_part_of_one(self):
        facts = {"status": TASK_STATUS_COMPLETED, "finish_reason": FINISH_REASON_TOKEN_BUDGET_EXCEEDED}
        told = child_text(TaskResponse(output="I stopped here.", unanswered=True, **facts))
        assert told == "(No answer: the agent had to stop early, TOKEN_BUDGET_EXCEEDED.)"

    async def test_a_failure_comes_with_what_there_is(self, start, overheard, gate):
        hold = {"text": "So far so good.", **HOLD}
        await start("helper", hold, FAILS)
        boss = await start("boss", asking("helper"), DONE, delegates=["helper"])
        prompts = overheard("boss")
        gate.open()
        await boss.run()
        error = json.loads(prompts[1].messages[-1].text)["error"]
        assert (error["reason"], error["partial_output"]) == ("MODEL_REJECTED", "So far so good.")
