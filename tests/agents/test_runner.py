"""The loop: plan, act, journal, until an answer stands, a limit is reached, or nothing helps."""

import json

import pytest
import structlog
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.agent import Agent
from meshwright.agents.result import NOTHING, WORDS
from meshwright.core.errors import MeshError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_RESUMED,
    NOTICE_KIND_TAKEN_OVER,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_INVALID_ARGUMENTS,
    TOOL_OUTCOME_OK,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    FINISH_REASON_DEADLINE,
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
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
def odd(kind: str) -> float | list | str:
    """Returns what is hard to keep."""
    if kind == "broken":
        raise RuntimeError("it broke")
    deep = []
    for _ in range(40):
        deep = [deep]
    return {"big": 1e20, "deep": deep}[kind]


def script(*replies):
    """A script as JSON, which is YAML as well."""
    return json.dumps({"agents": {"default": list(replies)}})


def calls(*arguments, name="echo", **reply):
    return {"tool_calls": [{"name": name, "arguments": one} for one in arguments], **reply}


DONE = {"text": "Done."}


@pytest.fixture
def agent(mesh, dial, gate):
    """Starts an agent on a script and connects to it."""

    async def started(*replies, **settings):
        author = Agent("worker", "Work.", tools=[echo, odd, gate.tool])
        return dial(await mesh.agent(author, script=script(*replies), **settings))

    return started


def results(events):
    return [event.tool_result for event in events if event.HasField("tool_result")]


def reason_of(response):
    return MeshError.from_status(response.error).reason


class TestBudgets:
    @pytest.mark.parametrize("on_budget_exceeded", [0, BUDGET_ACTION_FAIL])
    async def test_max_steps_end_a_task_with_what_there_is(self, agent, on_budget_exceeded):
        client = await agent(calls({"n": 1}, text="Thinking."))
        response = await client.run(max_steps=3, on_budget_exceeded=on_budget_exceeded)
        assert response.finish_reason == FINISH_REASON_MAX_STEPS
        assert (response.steps_used, response.tool_calls, response.output) == (3, 3, "Thinking.")
        if on_budget_exceeded:
            assert (response.status, reason_of(response)) == (TASK_STATUS_FAILED, "BUDGET_EXCEEDED")
        else:
            assert response.status == TASK_STATUS_COMPLETED

    @pytest.mark.parametrize("on_outage", ["fail", "degrade"])
    async def test_a_budget_that_ends_before_there_is_anything_says_so_in_words(self, mesh, dial, on_outage):
        author = Agent("worker", "Work.", on_outage=on_outage)
        client = dial(await mesh.agent(author, script=script(DONE)))
        response = await client.run(prompt="Think of it. " * 500, token_budget=512)
        kept = await client.get(response.task_id)
        for said in (response, kept):
            assert (said.status, said.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_TOKEN_BUDGET_EXCEEDED)
            assert (said.unanswered, said.steps_used) == (True, 0)
            assert said.output == f"{WORDS[said.finish_reason]} {NOTHING}"
        assert not (await client.run(prompt="Think.")).unanswered

    @pytest.mark.parametrize("on_budget_exceeded", [0, BUDGET_ACTION_FAIL])
    async def test_the_token_budget_ends_a_task_with_what_there_is(self, agent, on_budget_exceeded):
        client = await agent(calls({"n": 1}, text="Dear.", usage={"input_tokens": 300, "output_tokens": 100}))
        response = await client.run(token_budget=600, on_budget_exceeded=on_budget_exceeded)
        assert response.finish_reason == FINISH_REASON_TOKEN_BUDGET_EXCEEDED
        assert (response.steps_used, response.tokens_used, response.output) == (2, 800, "Dear.")
        assert response.status == (TASK_STATUS_FAILED if on_budget_exceeded else TASK_STATUS_COMPLETED)

    async def test_an_answer_that_cost_more_than_was_left_says_so(self, agent):
        client = await agent({"text": "Dear answer.", "usage": {"input_tokens": 500, "output_tokens": 500}})
        response = await client.run(token_budget=512)
        assert (response.output, response.finish_reason) == ("Dear answer.", FINISH_REASON_TOKEN_BUDGET_EXCEEDED)

    async def test_a_prompt_that_alone_breaks_the_budget_is_not_sent(self, agent, kinds):
        client = await agent(DONE)
        events = await client.steps("x" * 4_000, token_budget=512)
        assert kinds(events) == ["started", "result"]
        assert events[-1].result.finish_reason == FINISH_REASON_TOKEN_BUDGET_EXCEEDED


class TestTools:
    async def test_the_calls_of_a_step_run_at_once_and_are_read_in_their_order(self, agent, gate, kinds):
        client = await agent(calls({"key": "a"}, {"key": "b"}, {"key": "c"}, name="hold"), DONE)
        await client.submit(task_id="t1")
        await gate.holds(3)
        gate.open()
        events = await client.watch("t1")
        assert kinds(events) == ["started", "llm_call", *["tool_call"] * 3, *["tool_result"] * 3, "llm_call", "result"]
        assert gate.most == 3
        keys = [event.tool_call.idempotency_key for event in events if event.HasField("tool_call")]
        assert len(set(keys)) == 3

    async def test_what_is_wrong_with_a_call_is_told_to_the_model_which_goes_on(self, agent, kinds):
        wrong = [
            {"name": "echo", "arguments": {"n": "seven"}},
            {"name": "nothing", "arguments": {}},
            {"name": "echo", "arguments": {"n": 7}},
        ]
        client = await agent({"tool_calls": wrong}, DONE)
        events = await client.steps()
        assert kinds(events) == [
            *("started", "llm_call", "tool_result", "tool_result", "tool_call", "tool_result", "llm_call", "result")
        ]
        outcomes = {result.call_id: result for result in results(events)}
        assert [outcomes[f"call_0_{n}"].outcome for n in range(3)] == [
            TOOL_OUTCOME_INVALID_ARGUMENTS,
            TOOL_OUTCOME_DENIED,
            TOOL_OUTCOME_OK,
        ]
        assert "arguments/n" in MeshError.from_status(outcomes["call_0_0"].error).fields
        assert "echo" in outcomes["call_0_1"].error.message
        assert (events[-1].result.status, events[-1].result.tool_calls) == (TASK_STATUS_COMPLETED, 3)

    async def test_a_request_narrows_the_tools(self, agent):
        client = await agent(calls({"n": 1}), DONE)
        (refused,) = results(await client.steps(allowed_tools=["odd"]))
        (allowed,) = results(await client.steps(allowed_tools=["echo", "unknown"]))
        assert (refused.outcome, allowed.outcome) == (TOOL_OUTCOME_DENIED, TOOL_OUTCOME_OK)

    async def test_long_integers_reach_the_tool_as_they_are(self, agent):
        seen.clear()
        client = await agent(calls({"n": 2**60 + 1}), DONE)
        (result,) = results(await client.steps())
        assert seen == [2**60 + 1]
        assert result.result.string_value == str(2**60 + 1)

    async def test_a_failure_or_an_odd_result_is_an_outcome_like_any_other(self, agent):
        client = await agent(calls({"kind": "broken"}, {"kind": "big"}, {"kind": "deep"}, name="odd"), DONE)
        events = await client.steps()
        broken, big, deep = sorted(results(events), key=lambda result: result.call_id)
        assert MeshError.from_status(broken.error).reason == "TOOL_FAILED"
        assert (big.outcome, big.result.string_value) == (TOOL_OUTCOME_OK, "1e+20")
        assert deep.outcome == TOOL_OUTCOME_ERROR
        assert events[-1].result.output == "Done."

    async def test_arguments_that_cannot_be_kept_are_refused(self, agent):
        deep = 1
        for _ in range(60):
            deep = [deep]
        client = await agent(calls({"n": deep}), DONE)
        events = await client.steps()
        assert [result.outcome for result in results(events)] == [TOOL_OUTCOME_INVALID_ARGUMENTS]
        assert events[-1].result.output == "Done."


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("UNAVAILABLE", "MODEL_UNAVAILABLE"),
            ("RESOURCE_EXHAUSTED", "RATE_LIMITED"),
            ("UNAUTHENTICATED", "MODEL_REJECTED"),
        ],
    )
    async def test_a_model_that_fails_fails_the_task_and_says_why(self, agent, code, reason, kinds):
        client = await agent(calls({"n": 1}, text="Begun."), {"error": {"code": code, "message": "no"}})
        response = await client.run(task_id="t1")
        assert (response.status, response.finish_reason) == (TASK_STATUS_FAILED, FINISH_REASON_ERROR)
        assert reason_of(response) == reason
        assert (response.output, response.steps_used) == ("Begun.", 1)
        told = [kind for kind in kinds(await client.watch("t1")) if kind != "notice"]
        assert told[-2:] == ["tool_result", "result"]

    async def test_a_tasks_own_time_ends_it(self, agent, kinds):
        client = await agent(calls({"n": 1}), {"text": "late", "latency_ms": 60_000})
        response = await client.run(task_id="t1", timeout=Duration(nanos=300_000_000))
        assert (response.status, response.finish_reason) == (TASK_STATUS_FAILED, FINISH_REASON_DEADLINE)
        assert reason_of(response) == "TASK_TIMEOUT"
        assert response.steps_used == 1
        assert 300 <= response.duration_ms < 5_000

    async def test_a_bug_of_ours_fails_the_task_without_showing_its_insides(self, agent, mesh, monkeypatch):
        client = await agent(calls({"n": 1}))
        monkeypatch.setattr(mesh.agents["worker"].worker.runner, "_actor", None)
        response = await client.run()
        assert (response.status, reason_of(response)) == (TASK_STATUS_FAILED, "INTERNAL")
        assert "NoneType" not in response.error.message


class TestSession:
    async def test_the_second_task_of_a_session_sees_the_first(self, agent, mesh):
        client = await agent({"text": "Noted."})
        prompts = []
        model = mesh.agents["worker"].router.candidates[0].model
        answer = model.answer

        async def remembered(prompt, on_text):
            prompts.append([message.text for message in prompt.messages])
            return await answer(prompt, on_text)

        model.answer = remembered
        for number in range(4):
            await client.run(f"Turn {number}", session_id="s1")
        await client.run("Elsewhere", session_id="s2")
        await client.run("Nowhere")
        assert prompts[0] == ["Turn 0"]
        assert prompts[1] == ["Turn 0", "Noted.", "Turn 1"]
        assert prompts[3] == [*(text for n in range(3) for text in (f"Turn {n}", "Noted.")), "Turn 3"]
        assert prompts[4:] == [["Elsewhere"], ["Nowhere"]]


class TestTakeover:
    """What another worker began and left, on the same store."""

    @pytest.fixture
    def begun(self, journal, made, store):
        """Accepts a task for a worker that is lost before or after what it journals."""

        async def lose(*batches, times=1):
            request = TaskRequest(prompt="Go.", agent_id="worker", max_steps=10, token_budget=8192)
            task = made.task(request=request)
            await journal.accept(task, claim=False)
            for _ in range(times):
                claim = (await journal.claim(0, "worker")).claim
                for number, batch in enumerate(batches):
                    await journal.append(claim, f"k{number}", batch)
                await store.client.zadd(partition_key(0, "leases"), {task.name.ref: 1})
                await journal.sweep(0)
            return task

        return lose

    async def test_a_task_whose_worker_was_lost_at_once_starts_as_the_second_attempt(self, begun, agent, kinds):
        await begun()
        client = await agent(calls({"n": 1}), DONE)
        events = await client.watch("t1")
        assert kinds(events) == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
        assert {event.attempt for event in events} == {events[-1].result.attempt} == {2}

    async def test_a_step_goes_on_after_its_last_entry(self, agent, begun, kinds, mesh):
        lived = await agent(calls({"n": 1}, {"n": 2}), DONE)
        original = await lived.steps(task_id="original")
        await mesh.stop(mesh.agents["worker"])
        prefix = [event for event in original if event.sequence <= 5]
        assert kinds(prefix) == ["started", "llm_call", "tool_call", "tool_call", "tool_result"]
        for event in prefix:
            event.ClearField("task_id")
            event.ClearField("sequence")
        seen.clear()
        await begun(prefix)
        successor = await agent({"error": {"code": "UNAVAILABLE"}}, DONE)  # asked for turn 0, it would fail
        response = await successor.ended("t1")
        assert (response.output, response.attempt, response.steps_used) == ("Done.", 2, 2)
        assert len(seen) == 1
        events = await successor.watch("t1")
        assert kinds(events)[5:] == ["notice", "tool_result", "llm_call", "result"]
        assert events[5].notice.kind == NOTICE_KIND_TAKEN_OVER
        assert [event.sequence for event in events] == list(range(1, 10))

    async def test_a_task_that_loses_every_worker_is_given_up(self, begun, agent):
        await begun(times=5)
        with structlog.testing.capture_logs() as told:
            client = await agent(DONE)
            response = await client.ended("t1")
        assert (response.status, reason_of(response)) == (TASK_STATUS_FAILED, "POISON_TASK")
        (line,) = [line for line in told if line["event"] == "ended"]
        assert (line["log_level"], line["task_id"], line["reason"]) == ("warning", "t1", "POISON_TASK")

    async def test_a_task_that_makes_progress_is_never_given_up(self, journal, made, begun, agent, store):
        task = await begun(times=4)
        claim = (await journal.claim(0, "worker")).claim
        await journal.append(claim, "k", [made.notice()])
        await store.client.zadd(partition_key(0, "leases"), {task.name.ref: 1})
        await journal.sweep(0)
        client = await agent(DONE)
        response = await client.ended("t1")
        assert (response.finish_reason, response.attempt) == (FINISH_REASON_STOP, 6)

    async def test_a_task_that_was_handed_back_is_resumed_as_the_same_attempt(self, journal, made, agent):
        task = made.task(request=TaskRequest(prompt="Go.", max_steps=10, token_budget=8192))
        claim = (await journal.accept(task, claim=True, events=[made.notice()])).claim
        await journal.release(claim)
        client = await agent(DONE)
        events = await client.watch("t1")
        assert events[1].notice.kind == NOTICE_KIND_RESUMED
        assert events[-1].result.attempt == 1
