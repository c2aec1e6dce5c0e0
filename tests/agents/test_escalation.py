"""Escalation to people: which signals call for one, what they see, and what their answer does to the task."""

import asyncio
import json

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents import escalation
from meshwright.agents.agent import Agent
from meshwright.agents.escalation import Escalates, Signals, confidence, signalled
from meshwright.agents.inputs import Policy
from meshwright.agents.journal import Journal
from meshwright.agents.models.model import Call
from meshwright.agents.task import leaf
from meshwright.core.errors import InvalidRequestError, MeshError, RejectedError, SetupError, ToolFailedError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    StepEvent,
    TaskStarted,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_FAIL,
    DECISION_SKIP,
    ESCALATION_SIGNAL_ASKED_FOR_PERSON,
    ESCALATION_SIGNAL_FAILED_ATTEMPTS,
    ESCALATION_SIGNAL_GUARDRAIL,
    ESCALATION_SIGNAL_HIGH_STAKES,
    ESCALATION_SIGNAL_LOW_CONFIDENCE,
    ESCALATION_SIGNAL_SENTIMENT,
    INPUT_KIND_APPROVAL,
    INPUT_KIND_ESCALATION,
    INPUT_PRIORITY_HIGH,
    INPUT_PRIORITY_NORMAL,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TASK_STATUS_INPUT_REQUIRED,
    PendingInput,
    TaskRequest,
)
from meshwright.registry import tool

WISH = "Where is order 17? I want to speak to a human."
RANT = "This is the worst service ever, absolutely useless!"
DONE = {"text": "Done."}


@tool(effect="pure", name="orders.find")
def find(order: int) -> str:
    """Finds an order."""
    raise ValueError(f"no order {order}")


@tool(effect="pure")
def look() -> str:
    """Looks around."""
    return "nothing"


@tool(effect="non_idempotent", name="money.pay")
def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


def calls(name, **arguments):
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


FIND, LOOK, PAY = calls("orders.find", order=17), calls("look"), calls("money.pay", amount=5)


@pytest.fixture
def start(mesh, dial):
    """Starts an agent that follows a script and looks for every signal, and connects to it."""

    async def started(*replies, name="worker", lease_s=15.0, **facts):
        chosen = {"tools": [find, look, pay], "escalates": Escalates()} | facts
        script = json.dumps({"agents": {"default": list(replies)}})
        return dial(await mesh.agent(Agent(name, "Work.", **chosen), script=script, lease_s=lease_s))

    return started


def answer(text):
    return Value(string_value=text)


def asked(events):
    return [leaf(event).input_requested for event in events if leaf(event).HasField("input_requested")]


class TestAskedForPerson:
    async def test_it_is_asked_at_once_and_the_answer_is_the_task_s(self, start, kinds):
        client = await start(DONE)
        response = await client.run(WISH, task_id="t1")
        assert (response.status, response.usage.model_calls) == (TASK_STATUS_INPUT_REQUIRED, 0)
        (pending,) = response.pending_inputs
        assert (pending.kind, pending.signal) == (INPUT_KIND_ESCALATION, ESCALATION_SIGNAL_ASKED_FOR_PERSON)
        assert pending.priority == INPUT_PRIORITY_NORMAL
        assert list(pending.choices) == [DECISION_ANSWER, DECISION_SKIP, DECISION_FAIL]
        assert pending.on_expiry == DECISION_SKIP
        assert pending.summary.splitlines()[0] == f"Asked: {WISH}"
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("It is on its way. Ann"))
        response = await client.ended("t1")
        assert (response.status, response.output) == (TASK_STATUS_COMPLETED, "It is on its way. Ann")
        assert response.usage.model_calls == 0
        assert kinds(await client.watch("t1")).count("input_requested") == 1

    async def test_whoever_is_asked_may_leave_it_to_the_agent(self, start):
        client = await start(DONE)
        (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_SKIP, reason="the agent can")
        assert (await client.ended("t1")).output == "Done."

    async def test_or_end_the_task(self, start):
        client = await start(DONE)
        (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_FAIL, reason="spam")
        response = await client.ended("t1")
        assert (response.status, response.error.message) == (TASK_STATUS_FAILED, "spam")

    async def test_an_empty_answer_is_none_and_a_number_is_one(self, start, refusal):
        client = await start(DONE)
        (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
        for value in (Value(), answer(""), answer(" ")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.resolve("t1", pending, DECISION_ANSWER, answer=value)
            assert set(refusal(error.value).fields) == {"answer"}
        await client.resolve("t1", pending, DECISION_ANSWER, answer=Value(number_value=42))
        assert (await client.ended("t1")).output == "42"

    async def test_when_nobody_comes_the_agent_goes_on(self, start):
        client = await start(DONE, answer_within_s=1)
        await client.run(WISH, task_id="t1")
        assert (await client.ended("t1")).output == "Done."

    async def test_or_the_task_fails_where_the_agent_says_so(self, start):
        client = await start(DONE, answer_within_s=1, on_silence="fail")
        await client.run(WISH, task_id="t1")
        assert (await client.ended("t1")).status == TASK_STATUS_FAILED

    async def test_a_rule_of_one_s_own_takes_the_words_place(self, start):
        client = await start(DONE, escalates=Escalates(wish=lambda text: "Mensch" in text))
        assert (await client.run("Ich will mit einem Menschen sprechen.")).status == TASK_STATUS_INPUT_REQUIRED
        assert (await client.run(WISH)).status == TASK_STATUS_COMPLETED

    async def test_by_default_it_is_looked_for_where_the_agent_asks_people(self, start):
        asks = await start(DONE, name="asks", escalates=None, asks_people=True)
        assert (await asks.run(WISH)).status == TASK_STATUS_INPUT_REQUIRED
        assert (await asks.run(RANT)).status == TASK_STATUS_COMPLETED
        never = await start(DONE, name="never", escalates=None)
        assert (await never.run(WISH)).status == TASK_STATUS_COMPLETED


class TestSentiment:
    async def test_a_very_negative_message_comes_first(self, start):
        client = await start(DONE)
        (pending,) = (await client.run(RANT, task_id="t1")).pending_inputs
        assert (pending.signal, pending.priority) == (ESCALATION_SIGNAL_SENTIMENT, INPUT_PRIORITY_HIGH)
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("We are sorry. Ann"))
        assert (await client.ended("t1")).output == "We are sorry. Ann"

    async def test_after_a_wish_was_left_to_the_agent_the_mood_still_counts(self, start):
        client = await start(DONE)
        (pending,) = (await client.run(f"{RANT} {WISH}", task_id="t1")).pending_inputs
        assert pending.signal == ESCALATION_SIGNAL_ASKED_FOR_PERSON
        await client.resolve("t1", pending, DECISION_SKIP)
        (pending,) = await client.asked("t1")
        assert pending.signal == ESCALATION_SIGNAL_SENTIMENT
        await client.resolve("t1", pending, DECISION_SKIP)
        assert (await client.ended("t1")).output == "Done."

    @pytest.mark.parametrize("is_slow", [False, True])
    async def test_a_judge_of_one_s_own_takes_the_lexicon_s_place(self, start, is_slow):
        async def slowly(text):
            await asyncio.sleep(0)
            return -1.0

        client = await start(DONE, escalates=Escalates(judge=slowly if is_slow else lambda _: -1.0))
        assert (await client.run("Thanks.")).status == TASK_STATUS_INPUT_REQUIRED

    async def test_a_judge_that_fails_has_seen_nothing(self, start):
        def broken(text):
            raise ValueError(text)

        client = await start(DONE, escalates=Escalates(judge=broken))
        assert (await client.run(RANT)).status == TASK_STATUS_COMPLETED


class TestFailedAttempts:
    async def test_after_three_in_a_row_a_person_advises_and_the_agent_goes_on(self, start):
        wrong = calls("orders.find", order="x")
        client = await start(FIND, wrong, calls("orders.lose"), DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        assert pending.signal == ESCALATION_SIGNAL_FAILED_ATTEMPTS
        assert "Done: orders.find failed (TOOL_FAILED), orders.find failed (INVALID_REQUEST)" in pending.summary
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("Look in the archive."))
        response = await client.ended("t1")
        assert (response.output, response.steps_used) == ("Done.", 4)

    async def test_a_person_is_asked_once_in_a_task(self, start):
        client = await start(*(calls("orders.find", order=number) for number in range(7)), DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_SKIP)
        assert (await client.ended("t1")).output == "Done."
        assert len(asked(await client.watch("t1"))) == 1

    async def test_a_success_in_between_begins_anew(self, start):
        client = await start(FIND, FIND, LOOK, FIND, FIND, DONE)
        assert (await client.run()).output == "Done."


class TestConfidence:
    async def test_below_the_threshold_a_person_advises(self, start):
        client = await start(calls("ask.escalation", confidence=0.3, reason="two orders fit"), DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        assert pending.signal == ESCALATION_SIGNAL_LOW_CONFIDENCE
        assert pending.prompt == "the agent is not sure (confidence 0.3): two orders fit"
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("the second"))
        assert (await client.ended("t1")).output == "Done."

    @pytest.mark.parametrize("decision", [DECISION_SKIP, DECISION_FAIL])
    async def test_or_does_not(self, start, decision):
        client = await start(calls("ask.escalation", confidence=0.3, reason="two orders fit"), DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, decision)
        expected = TASK_STATUS_COMPLETED if decision == DECISION_SKIP else TASK_STATUS_FAILED
        assert (await client.ended("t1")).status == expected

    async def test_at_the_threshold_the_agent_goes_on(self, start):
        client = await start(calls("ask.escalation", confidence=0.4, reason="well"), DONE)
        assert (await client.run()).output == "Done."

    async def test_the_second_time_the_model_reads_that_a_person_was_asked(self, start):
        unsure = calls("ask.escalation", confidence=0.1, reason="well")
        client = await start(unsure, unsure, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("try"))
        assert (await client.ended("t1")).output == "Done."
        assert len(asked(await client.watch("t1"))) == 1

    async def test_the_tool_is_shown_only_where_it_is_looked_for(self, start):
        client = await start(calls("ask.escalation", confidence=0.1, reason="well"), DONE, escalates=None)
        assert (await client.run()).output == "Done."

    @pytest.mark.parametrize(
        ("arguments", "pointer"),
        [
            ({"reason": "x"}, "arguments/confidence"),
            ({"confidence": True, "reason": "x"}, "arguments/confidence"),
            ({"confidence": float("nan"), "reason": "x"}, "arguments/confidence"),
            ({"confidence": 1.1, "reason": "x"}, "arguments/confidence"),
            ({"confidence": 0.5, "reason": " "}, "arguments/reason"),
            ({"confidence": 0.5, "reason": 7}, "arguments/reason"),
        ],
    )
    def test_what_is_no_confidence_is_refused(self, arguments, pointer):
        with pytest.raises(InvalidRequestError) as error:
            confidence(Escalates(), Call("c", "ask.escalation", arguments))
        assert set(error.value.fields) == {pointer}


class TestStakes:
    async def test_a_call_of_high_stakes_is_confirmed_first_with_a_summary(self, start):
        client = await start(LOOK, PAY, DONE, stakes=["money.pay"])
        (pending,) = (await client.run("Pay Ann.", task_id="t1")).pending_inputs
        assert (pending.kind, pending.signal) == (INPUT_KIND_APPROVAL, ESCALATION_SIGNAL_HIGH_STAKES)
        assert pending.priority == INPUT_PRIORITY_HIGH
        assert pending.summary.splitlines()[:2] == ["Asked: Pay Ann.", "Done: look ok"]
        await client.resolve("t1", pending, DECISION_APPROVE)
        assert (await client.ended("t1")).output == "Done."

    async def test_an_approval_by_rule_has_a_summary_too(self, start):
        client = await start(PAY, DONE, approvals={"money.pay": "always"})
        (pending,) = (await client.run("Pay Ann.")).pending_inputs
        assert (pending.signal, pending.priority) == (0, INPUT_PRIORITY_NORMAL)
        assert pending.summary.startswith("Asked: Pay Ann.")


class TestTrees:
    async def test_a_child_does_not_take_its_parent_s_words_for_a_wish(self, mesh, start):
        child = {"tools": [], "escalates": Escalates()}
        await start(DONE, name="child", **child)
        client = await start(calls("ask.child", prompt=WISH + RANT), DONE, name="parent", delegates=["child"])
        assert (await client.run()).output == "Done."

    async def test_a_child_s_failures_are_asked_about_once_and_show_on_the_root(self, start):
        await start(FIND, FIND, FIND, DONE, name="child")
        client = await start(calls("ask.child", prompt="Find it."), DONE, name="parent", delegates=["child"])
        (pending,) = await asking(client, "t1")
        assert pending.origin_task_id
        await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("stop"))
        assert (await client.ended("t1")).output == "Done."
        assert len(asked(await client.watch("t1"))) == 1


async def asking(client, task_id):
    await client.submit(task_id=task_id)
    return await client.asked(task_id)


async def test_a_successor_asks_the_same_question_not_another_one(mesh, start):
    client = await start(DONE, name="worker")
    before = (await client.run(WISH, task_id="t1")).pending_inputs
    await mesh.stop(mesh.agents["worker"])
    client = await start(DONE, name="worker")
    after = (await client.get("t1")).pending_inputs
    assert list(after) == list(before)
    await client.resolve("t1", after[0], DECISION_ANSWER, answer=answer("Ann here."))
    assert (await client.ended("t1")).output == "Ann here."
    assert len(asked(await client.watch("t1"))) == 1


async def test_a_question_of_a_worker_that_was_lost_before_it_parked_is_waited_for_not_repeated(
    mesh, start, store, made
):
    client = await start(DONE, lease_s=0.5)
    await mesh.stop(mesh.agents["worker"])
    lost = Journal(store, "lost", lease_s=0.5)
    task = made.task(request=TaskRequest(prompt=WISH, max_steps=10, token_budget=8192))
    claim = (await lost.accept(task, claim=True)).claim
    pins = ["orders.find@1.0.0", "look@1.0.0", "money.pay@1.0.0"]
    await lost.append(claim, "started", [StepEvent(started=TaskStarted(agent_id="worker", tool_pins=pins))])
    pending = escalation.asked(
        escalation.wish(is_wanted=True), "t1", WISH, [], Policy(3_600, "refuse"), now_ms=2**41, call_id=""
    )
    await lost.append(claim, f"escalation:{pending.signal}", [StepEvent(attempt=1, input_requested=pending)])
    client = await start(DONE, lease_s=0.5)
    assert [one.input_id for one in await client.asked("t1")] == [pending.input_id]
    await client.resolve("t1", pending, DECISION_ANSWER, answer=answer("Ann here."))
    assert (await client.ended("t1")).output == "Ann here."
    assert len(asked(await client.watch("t1"))) == 1


async def test_an_agent_that_keeps_its_version_keeps_it_over_an_escalation(mesh, start, store):
    client = await start(DONE, same_version=True)
    (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
    await client.resolve("t1", pending, DECISION_SKIP)
    assert (await client.ended("t1")).output == "Done."
    queue = await store.client.hget(partition_key(0, "task", "default/default/t1"), "queue")
    assert queue == b"worker@1.0.0"


@pytest.mark.parametrize(
    "facts",
    [
        {"escalates": lambda: Escalates(("anger",))},
        {"escalates": lambda: Escalates("sentiment")},
        {"escalates": lambda: Escalates(min_confidence=2)},
        {"escalates": lambda: Escalates(max_failures=0)},
        {"escalates": lambda: Escalates(min_sentiment=-2)},
        {"stakes": lambda: "money.pay"},
        {"stakes": lambda: ["Money"]},
        {"escalates": Escalates, "delegates": lambda: ["escalation"]},
    ],
)
def test_mistakes_of_the_author_are_told(facts):
    with pytest.raises(SetupError):
        Agent("worker", "Work.", **{name: make() for name, make in facts.items()})


OUTCOMES = {
    "ok": ToolResult(outcome=TOOL_OUTCOME_OK),
    "failed": ToolResult(outcome=TOOL_OUTCOME_ERROR, error=ToolFailedError("no").to_status()),
    "rejected": ToolResult(outcome=TOOL_OUTCOME_DENIED, error=RejectedError("no").to_status()),
    "denied": ToolResult(outcome=TOOL_OUTCOME_DENIED, error=MeshError("no").to_status()),
}


@given(st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=30))
def test_failures_are_those_since_the_last_success(ends):
    signals = Signals()
    for end in ends:
        signals.apply(StepEvent(tool_result=OUTCOMES[end]))
    since = ends[len(ends) - ends[::-1].index("ok") :] if "ok" in ends else ends
    assert signals.failures == sum(end in ("failed", "denied") for end in since)


def test_a_guardrail_s_question_takes_signal_and_summary():
    pending = signalled(PendingInput(prompt="may it?"), ESCALATION_SIGNAL_GUARDRAIL, "x" * 5_000)
    assert (pending.signal, len(pending.summary)) == (ESCALATION_SIGNAL_GUARDRAIL, 2_000)
