"""The context in running tasks: what is shortened is journaled once, can be read on, and outlives the worker."""

import asyncio
import json

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.context import SMALLEST_WINDOW, tokens_of
from meshwright.agents.models.chain import Chain
from meshwright.agents.models.model import Answer, Call, Usage
from meshwright.core.errors import MeshError, ModelRejectedError, ModelUnavailableError, SetupError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import RESERVATION_STATE_CHARGED, RESERVATION_STATE_RELEASED
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_TOKEN_BUDGET_EXCEEDED, TASK_STATUS_COMPLETED
from meshwright.registry import tool

LONG = "BEGIN " + "long " * 20_000 + "NEEDLE " + "long " * 20_000 + "END"


@tool(effect="pure", name="docs.all")
def everything() -> str:
    """Returns a long text."""
    return LONG


class Talker:
    """A model that makes the calls that it is told, then says that it is done; it notes all prompts."""

    provider = name = "talker"

    def __init__(self, *calls, summary="In short.", failure=None):
        self.calls = calls
        self.failure = failure or ModelRejectedError("not for summaries")
        self.summary = summary
        self.prompts = []
        self.summarised = []
        self.may_end, self.may_summarise = asyncio.Event(), asyncio.Event()
        self.may_end.set()
        self.may_summarise.set()

    async def answer(self, prompt, on_text):
        if prompt.instructions.startswith("Summarise"):
            self.summarised.append(prompt)
            await self.may_summarise.wait()
            if not self.summary:
                raise self.failure
            return self.say(self.summary)
        self.prompts.append(prompt)
        if prompt.turn < len(self.calls):
            name, arguments = self.calls[prompt.turn]
            return Answer("", (Call("c", name, arguments),), Usage(10, 5), "talker", "t")
        await self.may_end.wait()
        return self.say("Done.")

    def say(self, text):
        return Answer(text, (), Usage(10, 5), "talker", "t")

    async def close(self):
        pass


@pytest.fixture
def start(mesh, dial, tmp_path):
    """Starts an agent whose model costs a micro a token, and connects to it."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(json.dumps({"talker": {"input": 1_000_000, "output": 1_000_000}}))

    async def started(model, *, settings=(), **facts):
        agent = Agent("talker", "Talk.", tools=[everything], model=model, **facts)
        process = await mesh.agent(agent, prices=str(prices), **dict(settings))
        process.router._chain = Chain(pause_s=0)
        return dial(process)

    return started


def compactions(events):
    return [event.context_compacted for event in events if event.HasField("context_compacted")]


async def test_the_middle_of_a_long_result_is_read_on(start):
    model = Talker(("docs.all", {}), ("result.read", {"handle": "m1", "offset": LONG.index("NEEDLE"), "length": 10}))
    client = await start(model)
    events = await client.steps(token_budget=32_768)
    assert events[-1].result.status == TASK_STATUS_COMPLETED
    assert [len(model.prompts), len(compactions(events))] == [3, 1]
    shown = model.prompts[1].messages[-1].text
    assert "NEEDLE" not in shown
    assert 'result.read {"handle": "m1"' in shown
    assert "result.read" in [one.name for one in model.prompts[1].tools]
    assert "NEEDLE" in model.prompts[2].messages[-1].text
    assert all(tokens_of(prompt.messages) < 32_768 for prompt in model.prompts)


async def test_a_task_that_needs_no_shortening_sees_no_tool_for_it(start):
    model = Talker()
    client = await start(model)
    events = await client.steps()
    assert compactions(events) == []
    assert [one.name for one in model.prompts[0].tools] == ["docs.all"]


async def test_reading_what_there_is_not_is_told_to_the_model(start):
    model = Talker(("result.read", {"handle": "m7"}))
    events = await (await start(model)).steps()
    (error,) = [event.tool_result.error for event in events if event.HasField("tool_result")]
    assert "arguments/handle" in MeshError.from_status(error).fields
    assert events[-1].result.status == TASK_STATUS_COMPLETED


async def test_a_successor_builds_the_same_prompt_and_asks_for_no_second_summary(mesh, start, dial):
    first, second = Talker(("docs.all", {})), Talker(("docs.all", {}))
    first.may_end.clear()
    client = await start(first, summaries="model", context_window=8_192)
    task = await client.submit("Go. " + "word " * 2_000, token_budget=32_768)
    async with asyncio.timeout(10):
        while len(first.prompts) < 2:
            await asyncio.sleep(0.01)
    await mesh.stop(mesh.agents["talker"])
    again = await start(second, summaries="model", context_window=8_192)
    assert (await again.ended(task.task_id)).status == TASK_STATUS_COMPLETED
    (prompt,) = second.prompts
    assert prompt.messages == first.prompts[1].messages
    assert prompt.tools == first.prompts[1].tools
    assert second.summarised == []


async def fill(client, turns=3):
    """Leaves turns that do not fit into a prompt."""
    for number in range(turns):
        await client.run(f"Question {number}: " + "word " * 2_000, session_id="s1", token_budget=32_768)


class TestModelSummaries:
    async def test_a_summary_is_asked_for_once_journaled_and_paid(self, start):
        model = Talker(summary="They spoke of words.")
        client = await start(model, summaries="model", context_window=8_192)
        await fill(client)
        events = await client.steps("Go.", session_id="s1", token_budget=32_768)
        (compacted,) = compactions(events)
        assert (compacted.summary, compacted.model) == ("They spoke of words.", "t")
        assert "They spoke of words." in model.prompts[-1].messages[0].text
        result = events[-1].result
        assert (result.usage.model_calls, result.tokens_used, result.steps_used) == (2, 30, 1)
        asked = model.summarised[-1].messages[0].text
        assert "Question" in asked

    async def test_a_model_that_does_not_answer_costs_the_summary_alone(self, start):
        model = Talker(summary="")
        client = await start(model, summaries="model", context_window=8_192)
        await fill(client)
        events = await client.steps("Go.", session_id="s1", token_budget=32_768)
        (compacted,) = compactions(events)
        assert compacted.summary.startswith("- Asked: Question")
        assert compacted.model == ""
        assert events[-1].result.status == TASK_STATUS_COMPLETED


class TestModelSummariesForMoney:
    """The turns before do not fit: a summary is asked for, then the answer; each takes 15 micros."""

    MUCH = 10**6

    async def start(self, start, model, **facts):
        return await start(model, summaries="model", context_window=8_192, **facts)

    async def filled(self, start, model, **facts):
        client = await self.start(start, model, **facts)
        await fill(client)
        model.summarised.clear()
        model.prompts.clear()
        return client

    def asks(self, micros=MUCH, **fields):
        return {"session_id": "s1", "token_budget": 32_768, "cost_budget_micros": micros} | fields

    def reservations(self, events):
        return [event.reservation for event in events if event.HasField("reservation")]

    async def test_it_is_set_aside_before_and_settled_after(self, start, kinds, store, made):
        client = await self.filled(start, Talker(summary="They spoke of words."))
        events = await client.steps("Go.", **self.asks())
        assert kinds(events) == [
            *("started", "reservation", "context_compacted"),
            *("reservation", "llm_call", "result"),
        ]
        (compacted,) = compactions(events)
        assert (compacted.summary, compacted.usage.cost_micros) == ("They spoke of words.", 15)
        assert compacted.reserved_micros == self.reservations(events)[0].cost_micros > 15
        result = events[-1].result
        assert (result.usage.cost_micros, result.usage.estimated_cost_micros, result.usage.model_calls) == (30, 0, 2)
        assert [row.usage.cost_micros for row in result.usage_shares if row.model] == [30]
        assert (await client.get(result.task_id)).usage == result.usage
        name = made.name(result.task_id)
        record = partition_key(name.partition(store.partitions), "task", name.ref)
        assert int(await store.client.hget(record, "reserved_micros")) == 0

    async def test_where_it_takes_too_much_of_what_is_left_the_sentences_stand(self, start, kinds):
        model = Talker()
        client = await self.filled(start, model)
        events = await client.steps("Go.", **self.asks(12_000))
        assert kinds(events) == ["started", "context_compacted", "reservation", "llm_call", "result"]
        (compacted,) = compactions(events)
        assert (compacted.model, compacted.reserved_micros, model.summarised) == ("", 0, [])
        assert compacted.summary.startswith("- Asked: Question")
        assert events[-1].result.usage.cost_micros == 15

    @pytest.mark.parametrize("budget", [4_000, 9_000, 30_000, 60_000])
    async def test_no_more_is_ever_spent_or_set_aside_than_there_is(self, start, budget):
        client = await self.filled(start, Talker())
        events = await client.steps("Go.", **self.asks(budget))
        spent = 0
        for event in events:
            assert spent + event.reservation.cost_micros <= budget
            spent += event.llm_call.usage.cost_micros + event.context_compacted.usage.cost_micros
        assert events[-1].result.usage.cost_micros == spent <= budget

    @pytest.mark.parametrize(("budget", "asked"), [(MUCH, 1), (9_000, 0)])
    async def test_it_is_paid_from_the_budget_of_its_session(self, mesh, start, budget, asked):
        await self.filled(start, Talker())
        await mesh.stop(mesh.agents["talker"])
        model = Talker()
        client = await self.start(start, model, settings={"budget_session_micros": budget})
        result = await client.run("Go.", **self.asks(0))
        assert (len(model.summarised), result.usage.cost_micros) == (asked, 15 + 15 * asked)

    @pytest.mark.parametrize(
        ("failure", "state"),
        [
            (ModelRejectedError("no"), RESERVATION_STATE_RELEASED),
            (ModelUnavailableError("gone"), RESERVATION_STATE_CHARGED),
        ],
    )
    async def test_one_that_fails_costs_what_it_may_have_cost(self, start, failure, state):
        model = Talker(failure=failure)
        client = await self.filled(start, model)
        model.summary = ""
        events = await client.steps("Go.", **self.asks())
        opened, closed, _ = self.reservations(events)
        assert (closed.state, closed.cost_micros) == (state, opened.cost_micros)
        charged = closed.cost_micros if state == RESERVATION_STATE_CHARGED else 0
        usage = events[-1].result.usage
        assert (usage.cost_micros, usage.estimated_cost_micros) == (15 + charged, charged)
        assert compactions(events)[0].model == ""

    async def test_a_worker_that_is_lost_in_it_has_paid_and_the_next_one_does_not_pay_again(self, mesh, start, becomes):
        first, second = Talker(), Talker()
        client = await self.filled(start, first)
        first.may_summarise.clear()
        task = await client.submit("Go.", **self.asks())
        await becomes(lambda: first.summarised)
        await mesh.stop(mesh.agents["talker"])
        again = await self.start(start, second)
        result = await again.ended(task.task_id)
        assert (result.status, second.summarised) == (TASK_STATUS_COMPLETED, [])
        events = await again.watch(task.task_id)
        charged = self.reservations(events)[1]
        assert (charged.state, result.usage.estimated_cost_micros) == (RESERVATION_STATE_CHARGED, charged.cost_micros)
        assert result.usage.cost_micros == 15 + charged.cost_micros
        assert compactions(events)[0].summary.startswith("- Asked: Question")

    async def test_one_that_was_journaled_is_not_paid_a_second_time(self, mesh, start, becomes):
        first, second = Talker(), Talker()
        client = await self.filled(start, first)
        first.may_end.clear()
        task = await client.submit("Go.", **self.asks())
        await becomes(lambda: first.prompts)
        await mesh.stop(mesh.agents["talker"])
        again = await self.start(start, second)
        result = await again.ended(task.task_id)
        assert (len(first.summarised), second.summarised) == (1, [])
        assert result.usage.cost_micros - result.usage.estimated_cost_micros == 30


async def test_a_window_that_is_too_small_ends_the_task_with_what_to_do(mesh, dial):
    agent = Agent("talker", "x" * 40_000, model=Talker(), context_window=SMALLEST_WINDOW)
    task = await dial(await mesh.agent(agent)).run(token_budget=32_768)
    error = MeshError.from_status(task.error)
    assert error.reason == "CONTEXT_TOO_SMALL"
    assert "context_window" in error.message


async def test_a_prompt_beyond_the_budget_ends_the_task_before_the_model_is_asked(start):
    model = Talker()
    task = await (await start(model)).run("word " * 1_000, token_budget=512)
    assert task.finish_reason == FINISH_REASON_TOKEN_BUDGET_EXCEEDED
    assert model.prompts == []


@pytest.mark.parametrize(
    "facts", [{"context_window": SMALLEST_WINDOW - 1}, {"summaries": "none"}, {"tools": ["result.read"]}]
)
def test_what_an_agent_cannot_have_is_refused(facts):
    with pytest.raises(SetupError, match="agent a"):
        Agent("a", "b", **facts)
