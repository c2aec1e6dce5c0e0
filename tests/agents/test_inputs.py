"""People in the loop: what is asked, who may decide on what, and what a decision does to the task."""

import asyncio
import json

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from meshwright.agents.agent import Agent
from meshwright.agents.backlog import Backlog
from meshwright.agents.inputs import APPROVAL, QUESTION, STRANDED, UNKNOWN, Policy, asked, silence, strictest
from meshwright.agents.task import leaf
from meshwright.core import telemetry
from meshwright.core.errors import SetupError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_DENIED, TOOL_OUTCOME_OK, TOOL_OUTCOME_UNKNOWN
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_FAIL,
    DECISION_REJECT,
    DECISION_RETRY,
    DECISION_SKIP,
    INPUT_KIND_APPROVAL,
    INPUT_KIND_QUESTION,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TASK_STATUS_INPUT_REQUIRED,
)
from meshwright.gen.agents.v1.task_service_pb2 import ListTasksRequest, ResolveInputRequest
from meshwright.registry import tool

sent = []


@tool(effect="non_idempotent", name="mail.send")
def send(to: str, copies: int = 1) -> str:
    """Sends a letter."""
    sent.append((to, copies))
    return f"sent {copies} to {to}"


@tool(effect="pure")
def look() -> str:
    """Looks around."""
    return "nothing"


@pytest.fixture(autouse=True)
def _nothing_sent():
    sent.clear()


def calls(name, **arguments):
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


DONE = {"text": "Done."}
SEND = calls("mail.send", to="ann")
ASK = calls("ask.person", question="Which colour?")


@pytest.fixture
def start(mesh, dial):
    """Starts an agent that follows a script, and connects to it."""

    async def started(*replies, name="worker", lease_s=15.0, **facts):
        chosen = {"tools": [send, look], "approvals": {"mail.send": "always"}} | facts
        script = json.dumps({"agents": {"default": list(replies)}})
        return dial(await mesh.agent(Agent(name, "Work.", **chosen), script=script, lease_s=lease_s))

    return started


def results(events):
    return [event.tool_result for event in events if event.HasField("tool_result")]


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


class TestApproval:
    async def test_a_person_sees_exactly_what_would_run(self, start):
        client = await start(SEND, DONE)
        response = await client.run(task_id="t1")
        assert response.status == TASK_STATUS_INPUT_REQUIRED
        (pending,) = response.pending_inputs
        assert pending.kind == INPUT_KIND_APPROVAL
        assert (pending.tool, pending.tool_version, dict(pending.arguments)) == ("mail.send", "1.0.0", {"to": "ann"})
        assert len(pending.intent_digest) == 64
        assert list(pending.choices) == [DECISION_APPROVE, DECISION_REJECT, DECISION_EDIT]
        assert pending.expire_time.ToSeconds() > response.create_time.ToSeconds() + 6 * 86_400
        assert sent == []

    async def test_questions_that_wait_are_counted(self, start, journal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await Backlog(journal, "another", "1.0.0").measure()
        assert telemetry.QUESTIONS_OPEN._value.get() == 1
        await client.resolve("t1", pending, DECISION_APPROVE)
        await Backlog(journal, "another", "1.0.0").measure()
        assert telemetry.QUESTIONS_OPEN._value.get() == 0

    async def test_what_was_approved_runs_once(self, start):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_APPROVE)
        response = await client.ended("t1")
        assert (response.status, response.output, list(response.pending_inputs)) == (TASK_STATUS_COMPLETED, "Done.", [])
        assert sent == [("ann", 1)]

    async def test_what_was_rejected_does_not_run_and_the_model_reads_why(self, start):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_REJECT, reason="not to Ann")
        assert (await client.ended("t1")).output == "Done."
        (result,) = results(await client.watch("t1"))
        assert (result.outcome, result.error.message) == (TOOL_OUTCOME_DENIED, "not to Ann")
        assert sent == []

    async def test_edited_arguments_run_instead_once_they_fit(self, start, refusal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        wrong, right = Struct(), Struct()
        wrong.update({"to": 7})
        right.update({"to": "bob", "copies": 2})
        error = await refused(client.resolve("t1", pending, DECISION_EDIT, edited_arguments=wrong))
        assert set(refusal(error).fields) == {"edited_arguments/to"}
        error = await refused(client.resolve("t1", pending, DECISION_EDIT))
        assert set(refusal(error).fields) == {"edited_arguments"}
        await client.resolve("t1", pending, DECISION_EDIT, edited_arguments=right)
        assert (await client.ended("t1")).output == "Done."
        assert sent == [("bob", 2)]

    async def test_another_digest_is_refused_and_changes_nothing(self, start, refusal):
        client = await start(SEND, DONE)
        before = await client.run(task_id="t1")
        (pending,) = before.pending_inputs
        for digest in ("", "0" * 64):
            error = await refused(client.resolve("t1", pending, DECISION_APPROVE, intent_digest=digest))
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert refusal(error).reason == "DIGEST_MISMATCH"
        after = await client.get("t1")
        assert (after.last_sequence, list(after.pending_inputs)) == (before.last_sequence, [pending])
        assert sent == []

    async def test_the_first_decision_counts(self, start, refusal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        deciding = [client.resolve("t1", pending, DECISION_REJECT) for _ in range(10)]
        outcomes = await asyncio.gather(*deciding, return_exceptions=True)
        lost = [refusal(outcome).reason for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert lost == ["INPUT_NOT_PENDING"] * 9
        await client.ended("t1")
        decisions = [event for event in await client.watch("t1") if event.HasField("input_resolved")]
        assert len(decisions) == 1

    async def test_what_is_no_choice_is_refused(self, start, refusal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        error = await refused(client.resolve("t1", pending, DECISION_ANSWER))
        assert refusal(error).fields == {"decision": "must be one of APPROVE, REJECT, EDIT"}
        request = ResolveInputRequest(task_id="t2", input_id=pending.input_id, decision=DECISION_REJECT)
        assert (await refused(client.tasks.ResolveInput(request))).code() == grpc.StatusCode.NOT_FOUND

    async def test_several_questions_of_a_step_are_decided_one_by_one(self, start):
        both = {"tool_calls": [*SEND["tool_calls"], *calls("look")["tool_calls"], *SEND["tool_calls"]]}
        client = await start(both, DONE)
        pending = (await client.run(task_id="t1")).pending_inputs
        assert len(pending) == 2
        await client.resolve("t1", pending[0], DECISION_APPROVE)
        (left,) = [one for one in await client.asked("t1") if one.input_id == pending[1].input_id]
        await client.resolve("t1", left, DECISION_REJECT)
        await client.ended("t1")
        outcomes = sorted(result.outcome for result in results(await client.watch("t1")))
        assert outcomes == [TOOL_OUTCOME_OK, TOOL_OUTCOME_OK, TOOL_OUTCOME_DENIED]
        assert sent == [("ann", 1)]

    async def test_a_tool_that_reads_others_words_makes_a_cautious_agent_ask(self, start):
        client = await start(SEND, calls("look"), SEND, DONE, approvals={"mail.send": "when_tainted"})
        response = await client.run(task_id="t1")
        assert response.status == TASK_STATUS_INPUT_REQUIRED
        assert sent == [("ann", 1)]

    @pytest.mark.parametrize("rule", ["never", "always"])
    async def test_the_stricter_rule_of_tool_and_agent_counts(self, start, rule):
        @tool(effect="pure", name="guarded", approval="always")
        def guarded() -> str:
            """Is guarded."""
            return "in"

        client = await start(calls("guarded"), DONE, tools=[guarded], approvals={"*": rule})
        assert (await client.run()).status == TASK_STATUS_INPUT_REQUIRED


class TestQuestion:
    async def test_an_answer_reaches_the_model(self, start):
        client = await start(ASK, {"text": "Thank you."}, asks_people=True)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        assert (pending.kind, pending.prompt) == (INPUT_KIND_QUESTION, "Which colour?")
        await client.resolve("t1", pending, DECISION_ANSWER, answer=Value(string_value="green"))
        assert (await client.ended("t1")).output == "Thank you."
        (resolved,) = [e.input_resolved for e in await client.watch("t1") if e.HasField("input_resolved")]
        assert (resolved.answer.string_value, resolved.decided_by) == ("green", "default")

    async def test_an_answer_must_fit_its_schema(self, start, refusal):
        ask = calls("ask.person", question="How many?", answer_schema={"type": "integer"})
        client = await start(ask, DONE, asks_people=True)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        error = await refused(client.resolve("t1", pending, DECISION_ANSWER, answer=Value(string_value="many")))
        assert set(refusal(error).fields) == {"answer"}
        error = await refused(client.resolve("t1", pending, DECISION_ANSWER))
        assert refusal(error).fields == {"answer": "is required"}
        await client.resolve("t1", pending, DECISION_ANSWER, answer=Value(number_value=3))
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED

    async def test_only_an_agent_that_may_ask_people_does(self, start):
        client = await start(ASK, DONE)
        await client.run(task_id="t1")
        (result,) = results(await client.watch("t1"))
        assert result.outcome == TOOL_OUTCOME_DENIED

    async def test_a_question_that_asks_nothing_is_handed_back_to_the_model(self, start):
        client = await start(calls("ask.person"), DONE, asks_people=True)
        assert (await client.run()).output == "Done."


class TestEnd:
    async def test_a_person_may_end_the_task(self, start):
        client = await start(ASK, DONE, asks_people=True)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await client.resolve("t1", pending, DECISION_FAIL, reason="no use")
        response = await client.ended("t1")
        assert (response.status, response.error.message) == (TASK_STATUS_FAILED, "no use")

    async def test_a_cancelled_task_asks_no_longer(self, start, refusal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        response = await client.cancel("t1")
        assert (response.status, list(response.pending_inputs)) == (TASK_STATUS_CANCELLED, [])
        error = await refused(client.resolve("t1", pending, DECISION_APPROVE))
        assert refusal(error).reason == "INPUT_NOT_PENDING"
        assert (await client.tasks.ListTasks(ListTasksRequest(statuses=[TASK_STATUS_INPUT_REQUIRED]))).tasks == []

    @pytest.mark.parametrize(("silent", "status"), [("refuse", TASK_STATUS_COMPLETED), ("fail", TASK_STATUS_FAILED)])
    async def test_silence_has_the_consequence_that_the_agent_chose(self, start, silent, status, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.1)
        client = await start(SEND, DONE, answer_within_s=1, on_silence=silent)
        assert (await client.run(task_id="t1")).status == TASK_STATUS_INPUT_REQUIRED
        assert (await client.ended("t1")).status == status
        (resolved,) = [e.input_resolved for e in await client.watch("t1") if e.HasField("input_resolved")]
        assert (resolved.decided_by, resolved.reason) == ("", "nobody answered in time")
        assert sent == []


class TestWaiting:
    async def test_a_waiting_task_holds_no_place_and_its_clock_stands_still(self, start, monkeypatch, journal, made):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.1)
        client = await start(SEND, DONE)
        timeout = {"seconds": 2}
        (pending,) = (await client.run(task_id="t1", timeout=timeout)).pending_inputs
        before = await journal.record(made.name("t1"))
        await asyncio.sleep(2.5)
        assert (await client.get("t1")).status == TASK_STATUS_INPUT_REQUIRED
        await client.resolve("t1", pending, DECISION_APPROVE)
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED
        assert (await journal.record(made.name("t1"))).deadline >= before.deadline + 2_400

    async def test_a_question_outlives_the_process_that_asked(self, start, mesh):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await mesh.stop(mesh.agents["worker"])
        client = await start(SEND, DONE)
        await client.resolve("t1", pending, DECISION_APPROVE)
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED
        assert sent == [("ann", 1)]

    async def test_a_childs_question_shows_on_its_parents_and_is_decided_there(self, start, mesh):
        await start(SEND, DONE, name="child")
        client = await start(calls("ask.child", prompt="Send it."), DONE, name="parent", delegates=["child"])
        response = await client.run(task_id="t1")
        assert response.status == TASK_STATUS_INPUT_REQUIRED
        (pending,) = response.pending_inputs
        assert pending.origin_task_id.startswith("t1.")
        child = await client.get(pending.origin_task_id)
        assert child.status == TASK_STATUS_INPUT_REQUIRED
        listed = await client.tasks.ListTasks(ListTasksRequest(statuses=[TASK_STATUS_INPUT_REQUIRED]))
        assert {task.task_id for task in listed.tasks} == {"t1", pending.origin_task_id}
        await client.resolve("t1", pending, DECISION_APPROVE)
        response = await client.ended("t1")
        assert (response.output, list(response.pending_inputs)) == ("Done.", [])
        assert [leaf(e).WhichOneof("event") for e in await client.watch("t1")].count("input_resolved") == 1
        assert sent == [("ann", 1)]
        listed = await client.tasks.ListTasks(ListTasksRequest(statuses=[TASK_STATUS_INPUT_REQUIRED]))
        assert list(listed.tasks) == []

    async def test_the_end_of_a_parent_takes_the_questions_of_its_children_back(self, start, journal, made):
        await start(SEND, DONE, name="grandchild")
        await start(calls("ask.grandchild", prompt="Send."), DONE, name="child", delegates=["grandchild"])
        client = await start(calls("ask.child", prompt="Send."), DONE, name="parent", delegates=["child"])
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        (child,) = (await client.tasks.ListTasks(ListTasksRequest(parent_task_id="t1"))).tasks
        await client.cancel(child.task_id)
        response = await client.ended("t1")
        assert (response.output, list(response.pending_inputs)) == ("Done.", [])
        assert (await client.get(pending.origin_task_id)).status == TASK_STATUS_CANCELLED
        record = await journal.record(made.name("t1"))
        assert record.asks == 0

    async def test_an_agent_does_not_decide_on_what_agents_ask(self, start, mesh, refusal):
        client = await start(SEND, DONE)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        process = mesh.agents["worker"]
        from meshwright.gen.agents.v1.grant_pb2 import Grant

        token = process.signer.sign(Grant(tenant="default", principal="default", agent_id="worker", task_id="t1"))
        request = ResolveInputRequest(
            task_id="t1", input_id=pending.input_id, decision=DECISION_APPROVE, intent_digest=pending.intent_digest
        )
        error = await refused(client.tasks.ResolveInput(request, metadata=[("x-mesh-grant-bin", token)]))
        assert refusal(error).reason == "PERMISSION_DENIED"
        assert sent == []


class TestUnknown:
    @pytest.fixture
    async def lost(self, start, store, becomes):
        """A task whose call was begun by a host that is gone."""
        client = await start(SEND, DONE, approvals={})

        async def ask(monkeypatch):
            from meshwright.core.errors import OutcomeUnknownError
            from meshwright.registry.host import ToolHost

            call, lost = ToolHost.call, []

            async def losing(host, *arguments, **facts):
                if not lost:
                    lost.append(1)
                    raise OutcomeUnknownError("mail.send was begun and its host was lost: it may have run")
                return await call(host, *arguments, **facts)

            monkeypatch.setattr(ToolHost, "call", losing)
            (pending,) = (await client.run(task_id="t1")).pending_inputs
            return client, pending

        return ask

    async def test_a_person_has_it_run_again_under_another_key(self, lost, monkeypatch):
        client, pending = await lost(monkeypatch)
        assert list(pending.choices) == [DECISION_RETRY, DECISION_SKIP, DECISION_FAIL]
        await client.resolve("t1", pending, DECISION_RETRY)
        assert (await client.ended("t1")).output == "Done."
        intents = [event.tool_call for event in await client.watch("t1") if event.HasField("tool_call")]
        assert len({intent.idempotency_key for intent in intents}) == len(intents) == 2
        assert sent == [("ann", 1)]

    async def test_a_person_goes_on_without_it(self, lost, monkeypatch):
        client, pending = await lost(monkeypatch)
        await client.resolve("t1", pending, DECISION_SKIP)
        assert (await client.ended("t1")).output == "Done."
        (result,) = results(await client.watch("t1"))
        assert result.outcome == TOOL_OUTCOME_UNKNOWN
        assert sent == []

    async def test_a_person_ends_the_task(self, lost, monkeypatch):
        client, pending = await lost(monkeypatch)
        await client.resolve("t1", pending, DECISION_FAIL)
        assert (await client.ended("t1")).status == TASK_STATUS_FAILED


class TestRules:
    @pytest.mark.parametrize(
        ("facts", "problem"),
        [
            ({"approvals": {"mail.send": "sometimes"}}, "is none of never, when_tainted, always"),
            ({"on_silence": "wait"}, "on_silence is refuse or fail"),
            ({"answer_within_s": 0}, "answer_within_s must be"),
            ({"asks_people": True, "delegates": ["person"]}, "exclude each other"),
        ],
    )
    def test_a_mistake_of_the_author_is_told(self, facts, problem):
        with pytest.raises(SetupError, match=problem):
            Agent("worker", "Work.", **facts)

    def test_the_same_question_has_the_same_id_after_a_crash(self):
        policy = Policy(10, "refuse")
        one, again = (asked(APPROVAL, "t1", "?", policy, now_ms=now, call_id="c", turn="1") for now in (1, 99))
        assert one.input_id == again.input_id
        others = [
            asked(kind, task, "?", policy, now_ms=1, call_id=call, turn=turn)
            for kind, task, call, turn in [
                (UNKNOWN, "t1", "c", "1"),
                (APPROVAL, "t2", "c", "1"),
                (APPROVAL, "t1", "d", "1"),
                (APPROVAL, "t1", "c", "2"),
            ]
        ]
        assert len({one.input_id, *(other.input_id for other in others)}) == 5

    @pytest.mark.parametrize(
        ("kind", "decision"),
        [
            (APPROVAL, DECISION_REJECT),
            (UNKNOWN, DECISION_SKIP),
            (QUESTION, DECISION_REJECT),
            (STRANDED, DECISION_RETRY),
        ],
    )
    def test_silence_refuses_or_fails(self, kind, decision):
        for policy, expected in ((Policy(1, "refuse"), decision), (Policy(1, "fail"), DECISION_FAIL)):
            assert silence(asked(kind, "t1", "?", policy, now_ms=0)).decision == expected

    def test_the_strictest_rule_wins(self):
        assert strictest("never", "always", "when_tainted") == "always"
        assert strictest("never", "when_tainted") == "when_tainted"

    @pytest.mark.parametrize("kind", [APPROVAL, UNKNOWN, STRANDED, QUESTION])
    def test_four_eyes_are_wanted_for_all_but_the_agents_own_questions(self, kind):
        for is_wanted in (True, False):
            pending = asked(kind, "t1", "?", Policy(10, "refuse", is_wanted), now_ms=0)
            assert pending.four_eyes == (is_wanted and kind is not QUESTION)
