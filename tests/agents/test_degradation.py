"""Degradation: what an agent gives instead of failing, in which cases, and how a client can tell."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents import runner
from meshwright.agents.agent import Agent
from meshwright.agents.degradation import SAFE, less_of, notice_of_what_is_down, without_what_is_down
from meshwright.agents.models.chain import Chain
from meshwright.agents.models.model import Message, Prompt, ToolSpec
from meshwright.agents.outage import MAX_TEXT, Outage
from meshwright.agents.result import STOP, WORDS, End, cancelled, timed_out
from meshwright.agents.state import RunState
from meshwright.core.errors import (
    InternalError,
    InvalidRequestError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    RejectedError,
    SetupError,
    ToolFailedError,
    UnavailableError,
)
from meshwright.gen.agents.v1.step_event_pb2 import (
    DEGRADATION_LEVEL_PLAIN_WORD,
    DEGRADATION_LEVEL_SAFE_ERROR,
    DEGRADATION_LEVEL_STAND_IN,
    DEGRADATION_LEVEL_WITHOUT_TOOLS,
    NOTICE_KIND_DEGRADED,
    LlmCall,
    PlannedCall,
    RunnerNotice,
    StepEvent,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    BUDGET_ACTION_PARTIAL,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_DEGRADED,
    FINISH_REASON_ERROR,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
)
from meshwright.registry import tool

DEGRADES = Outage(is_degrading=True, text="Call 555.")
FAILS = Outage()
BUDGETS = (FINISH_REASON_MAX_STEPS, FINISH_REASON_TOKEN_BUDGET_EXCEEDED, FINISH_REASON_COST_BUDGET_EXCEEDED)
ERRORS = (ModelUnavailableError, RateLimitedError, ModelRejectedError, InternalError, RejectedError, UnavailableError)


def said(text="So far."):
    return RunState(messages=[Message("assistant", text)] if text else [])


def less(end, outage=DEGRADES, state=None, action=BUDGET_ACTION_PARTIAL, **more):
    return less_of(end, state or said(""), outage, action, **more)


class TestLevels:
    @pytest.mark.parametrize("error", [RateLimitedError("slow down"), ModelUnavailableError("http://10.0.0.1 is down")])
    def test_where_no_model_answers_the_agents_own_words_stand_in(self, error):
        found = less(End(FINISH_REASON_ERROR, error))
        assert found.end == End(FINISH_REASON_DEGRADED, output="Call 555.")
        assert found.end.status(BUDGET_ACTION_PARTIAL) == TASK_STATUS_COMPLETED
        assert (found.notice.kind, found.notice.level) == (NOTICE_KIND_DEGRADED, DEGRADATION_LEVEL_STAND_IN)
        assert error.reason in found.notice.detail
        assert "10.0.0.1" not in found.notice.detail
        assert less(End(FINISH_REASON_ERROR, error), state=said()).end.output == "Call 555.\n\nSo far."

    def test_an_answer_from_before_goes_before_the_agents_own_words(self):
        found = less(End(FINISH_REASON_ERROR, RateLimitedError("slow down")), recalled="It is 42.")
        assert found.end.output == "It is 42."
        assert "from before" in found.notice.detail

    @pytest.mark.parametrize("reason", BUDGETS)
    def test_a_used_up_budget_is_said_in_a_plain_word_before_what_there_is(self, reason):
        found = less(End(reason), state=said())
        assert found.end == End(reason, output=f"{WORDS[reason]}\n\nSo far.")
        assert found.notice.level == DEGRADATION_LEVEL_PLAIN_WORD
        assert less(End(reason)).end == End(reason)  # nothing is there: every result says so

    @pytest.mark.parametrize("reason", BUDGETS)
    def test_a_budget_whose_end_is_to_fail_fails(self, reason):
        assert less(End(reason), action=BUDGET_ACTION_FAIL).notice is None

    def test_a_refusal_for_good_is_a_failure_that_tells_no_more_than_its_reason(self):
        found = less(End(FINISH_REASON_ERROR, ModelRejectedError("http://10.0.0.1 does not accept the key")))
        assert found.end.status(BUDGET_ACTION_PARTIAL) == TASK_STATUS_FAILED
        assert (found.end.error.reason, found.end.error.message) == ("MODEL_REJECTED", SAFE)
        assert found.notice.level == DEGRADATION_LEVEL_SAFE_ERROR
        assert "10.0.0.1" not in found.notice.detail

    @pytest.mark.parametrize(
        "end",
        [
            STOP,
            timed_out(),
            cancelled("enough"),
            End(FINISH_REASON_ERROR, RejectedError("no")),
            End(FINISH_REASON_ERROR, InternalError("internal error 7")),
            End(FINISH_REASON_ERROR, InvalidRequestError("no such model")),
        ],
    )
    def test_every_other_end_stays_as_it_is(self, end):
        assert (less(end).end, less(end).notice) == (end, None)

    @given(
        st.one_of(
            st.sampled_from(BUDGETS).map(End), st.sampled_from(ERRORS).map(lambda c: End(FINISH_REASON_ERROR, c("x")))
        ),
        st.text(max_size=20),
        st.booleans(),
    )
    def test_without_the_agents_consent_nothing_changes_and_with_it_less_is_always_told(self, end, text, is_degrading):
        found = less(end, Outage(is_degrading), said(text))
        has_nothing = end.reason in BUDGETS and not text  # every result says that, degraded or not
        assert (found.end == end) == (found.notice is None or has_nothing)
        assert is_degrading or found.notice is None


class TestTools:
    PROMPT = Prompt("a", "", (), (ToolSpec("read", "", {}), ToolSpec("send", "", {})))

    def state(self, error, call_id="c1"):
        state = RunState()
        planned = [PlannedCall(call_id="c1", tool="read"), PlannedCall(call_id="c2", tool="send")]
        state.apply(StepEvent(step=1, llm_call=LlmCall(planned_calls=planned)))
        state.apply(StepEvent(step=1, tool_result=ToolResult(call_id=call_id, error=error.to_status())))
        return state

    def test_a_tool_that_cannot_be_reached_is_shown_to_the_model_no_more(self):
        state = self.state(UnavailableError("nobody there"))
        assert [one.name for one in without_what_is_down(self.PROMPT, state, DEGRADES).tools] == ["send"]
        notice = notice_of_what_is_down(state, DEGRADES)
        assert notice.level == DEGRADATION_LEVEL_WITHOUT_TOOLS
        assert "read" in notice.detail
        state.apply(StepEvent(notice=notice))
        assert notice_of_what_is_down(state, DEGRADES) is None
        assert state.is_degraded

    def test_a_tool_that_failed_is_still_there(self):
        state = self.state(ToolFailedError("broke"))
        assert without_what_is_down(self.PROMPT, state, DEGRADES) is self.PROMPT
        assert notice_of_what_is_down(state, DEGRADES) is None

    def test_an_agent_that_fails_keeps_its_tools(self):
        state = self.state(UnavailableError("nobody there"))
        assert without_what_is_down(self.PROMPT, state, FAILS) is self.PROMPT
        assert notice_of_what_is_down(state, FAILS) is None


class TestAgent:
    def test_it_fails_unless_it_says_otherwise(self):
        assert Agent("a", "Work.").outage == Outage(is_degrading=False)
        assert Agent("a", "Work.", on_outage="degrade", outage_text="Sorry.").outage == Outage(True, "Sorry.")

    @pytest.mark.parametrize(
        "facts", [{"on_outage": "hope"}, {"outage_text": " "}, {"outage_text": "x" * (MAX_TEXT + 1)}]
    )
    def test_what_is_no_policy_is_refused(self, facts):
        with pytest.raises(SetupError, match=next(iter(facts))):
            Agent("a", "Work.", **facts)


@tool(effect="pure", name="far.read")
async def read() -> str:
    """Reads."""
    raise UnavailableError("nobody there")


def script(*replies):
    return json.dumps({"agents": {"default": list(replies)}})


DOWN = {"error": {"code": "UNAVAILABLE", "message": "http://10.0.0.1 is down"}}


@pytest.fixture
def agent(mesh, dial):
    """Starts an agent that degrades, on a script."""

    async def started(*replies, **facts):
        author = Agent("worker", "Work.", **({"on_outage": "degrade", "outage_text": "Call 555."} | facts))
        process = await mesh.agent(author, script=script(*replies))
        process.router._chain = Chain(pause_s=0)
        return dial(process)

    return started


def levels(events):
    return [event.notice.level for event in events if event.notice.kind == NOTICE_KIND_DEGRADED]


class TestInAMesh:
    async def test_a_model_that_is_down_is_answered_for(self, agent):
        client = await agent(DOWN)
        events = await client.steps()
        result = events[-1].result
        assert (result.status, result.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_DEGRADED)
        assert (result.output, result.degraded, result.HasField("error")) == ("Call 555.", True, False)
        assert levels(events) == [DEGRADATION_LEVEL_STAND_IN]
        assert "10.0.0.1" not in str(events[-2:])
        assert (await client.get(result.task_id)).degraded

    async def test_an_agent_that_was_not_told_to_degrade_fails(self, agent):
        client = await agent(DOWN, on_outage="fail")
        result = (await client.steps())[-1].result
        assert (result.status, result.degraded) == (TASK_STATUS_FAILED, False)
        assert MeshError.from_status(result.error).reason == "MODEL_UNAVAILABLE"

    async def test_a_used_up_budget_is_said(self, agent):
        client = await agent({"text": "Thinking.", "tool_calls": [{"name": "nothing"}]})
        events = await client.steps(max_steps=1)
        assert events[-1].result.output == f"{WORDS[FINISH_REASON_MAX_STEPS]}\n\nThinking."
        assert events[-1].result.degraded
        assert levels(events) == [DEGRADATION_LEVEL_PLAIN_WORD]

    async def test_a_task_goes_on_without_a_tool_that_is_down(self, agent, monkeypatch):
        monkeypatch.setattr("meshwright.agents.actor.PATIENCE_S", 0)
        wants = {"tool_calls": [{"name": "far.read"}]}
        client = await agent(wants, {"text": "Without it."}, tools=[read])
        events = await client.steps()
        result = events[-1].result
        assert (result.output, result.degraded) == ("Without it.", True)
        assert levels(events) == [DEGRADATION_LEVEL_WITHOUT_TOOLS]

    async def test_a_childs_degradation_shows_on_its_parent(self, agent, mesh, dial):
        asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Go."}}]}
        await agent(DOWN)
        parent = Agent("parent", "Ask.", delegates=["worker"])
        client = dial(await mesh.agent(parent, script=script(asks, {"text": "It says to call."})))
        result = (await client.steps())[-1].result
        assert (result.output, result.degraded) == ("It says to call.", True)

    async def test_a_registry_that_is_down_keeps_a_task_from_its_tools_not_from_its_answer(
        self, agent, mesh, journal, made, store, monkeypatch
    ):
        monkeypatch.setattr(runner, "PATIENCE_S", 0.3)
        started = StepEvent(attempt=1)
        started.started.agent_id = "worker"
        started.started.tool_pins.append("gone.read@1.0.0")
        client = await agent({"text": "Without it."})

        async def silent(*_):
            raise UnavailableError("the registry does not answer")

        monkeypatch.setattr(mesh.agents["worker"].registry, "resolve", silent)
        task = made.task()
        claim = (await journal.accept(task, claim=True, events=[started])).claim
        await journal.release(claim)
        response = await client.ended("t1")
        assert (response.output, response.degraded) == ("Without it.", True)
        (notice,) = [event.notice for event in await client.watch("t1") if event.notice.level]
        assert "gone.read@1.0.0" in notice.detail


def test_a_notice_without_a_level_degrades_nothing():
    state = RunState()
    state.apply(StepEvent(notice=RunnerNotice(detail="hm")))
    assert not state.is_degraded
