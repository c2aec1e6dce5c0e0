"""The context in running tasks: what is shortened is journaled once, can be read on, and outlives the worker."""

import asyncio

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.context import SMALLEST_WINDOW, tokens_of
from meshwright.agents.models.model import Answer, Call, Usage
from meshwright.core.errors import MeshError, ModelRejectedError, SetupError
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

    def __init__(self, *calls, summary="In short."):
        self.calls = calls
        self.summary = summary
        self.prompts = []
        self.summarised = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def answer(self, prompt, on_text):
        if prompt.instructions.startswith("Summarise"):
            self.summarised.append(prompt)
            if not self.summary:
                raise ModelRejectedError("not for summaries")
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
def start(mesh, dial):
    async def started(model, **facts):
        agent = Agent("talker", "Talk.", tools=[everything], model=model, **facts)
        return dial(await mesh.agent(agent))

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


class TestModelSummaries:
    async def fill(self, client, turns=3):
        for number in range(turns):
            await client.run(f"Question {number}: " + "word " * 2_000, session_id="s1", token_budget=32_768)

    async def test_a_summary_is_asked_for_once_journaled_and_paid(self, start):
        model = Talker(summary="They spoke of words.")
        client = await start(model, summaries="model", context_window=8_192)
        await self.fill(client)
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
        await self.fill(client)
        events = await client.steps("Go.", session_id="s1", token_budget=32_768)
        (compacted,) = compactions(events)
        assert compacted.summary.startswith("- Asked: Question")
        assert compacted.model == ""
        assert events[-1].result.status == TASK_STATUS_COMPLETED


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
