"""What embeddings cost: set aside before, settled after, charged where the answer is lost, told by type."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.actor import pay
from meshwright.agents.agent import Agent
from meshwright.agents.embedders.embedder import MOST_CHARACTERS, Embedded
from meshwright.agents.embedders.hashing import HashingEmbedder
from meshwright.agents.embedders.metering import MeteredEmbedder, most_tokens
from meshwright.agents.models.chain import Chain
from meshwright.agents.models.prices import Price, Prices
from meshwright.agents.task import Record, TaskName
from meshwright.core import telemetry
from meshwright.core.errors import (
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    PriceUnknownError,
    RateLimitedError,
)
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_RELEASED,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    TOOL_OUTCOME_UNKNOWN,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    COST_TYPE_EMBEDDING,
    COST_TYPE_LLM,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    EmbeddingUsage,
)
from meshwright.gen.agents.v1.task_service_pb2 import COST_GROUPING_MODEL, COST_GROUPING_TYPE, GetCostsRequest
from tests.agents.embedders.embedding_server import EmbeddingServer, axis
from tests.agents.models.conftest import listening
from tests.agents.test_responses import Teller
from tests.agents.test_responses import wants as asked
from tests.registry.host_tools import grant

RECORD = Record.parse(TaskName("default", "ann", "t1"), {b"state": b"RUNNING", b"agent": b"clerk", b"request": b""}, 0)
TOKEN = {"input": 1_000_000, "output": 1_000_000}
"""One micro a token."""
FACT = "The boat is called Albatross."
MUCH = 10**6


class Fails:
    """An embedder that does not answer."""

    provider, model, name, dimensions = "openai", "m", "openai-m", 384

    def __init__(self, error):
        self.error = error

    async def embed(self, texts):
        if self.error is None:
            await asyncio.Event().wait()
        if isinstance(self.error, Exception):
            raise self.error
        return Embedded([axis(0)], self.error)


def metered(error, **prices):
    return MeteredEmbedder(Fails(error), Prices({name: Price(input=price, output=0) for name, price in prices.items()}))


class TestMetering:
    @given(st.text(max_size=2 * MOST_CHARACTERS))
    def test_a_bound_is_never_below_a_token_for_two_bytes_of_what_is_sent(self, text):
        assert most_tokens(text) > len(text[:MOST_CHARACTERS].encode(errors="replace")) / 2

    async def test_an_answer_costs_what_was_counted(self):
        spent = EmbeddingUsage()
        await metered(5, m=2_000_000).embed("one", spent)
        assert spent == EmbeddingUsage(model="m", tokens=5, cost_micros=10)

    @pytest.mark.parametrize("error", [RateLimitedError("no"), ModelRejectedError("no")])
    async def test_what_is_refused_costs_nothing(self, error):
        spent = EmbeddingUsage()
        with pytest.raises(type(error)):
            await metered(error, m=1_000_000).embed("one", spent)
        assert not spent.ByteSize()

    async def test_what_is_lost_costs_the_most_that_it_may(self):
        embedder, spent = metered(ModelUnavailableError("gone"), m=1_000_000), EmbeddingUsage()
        with pytest.raises(ModelUnavailableError):
            await embedder.embed("one", spent)
        assert (spent.cost_micros, spent.estimated) == (embedder.most_micros("one"), True)
        hangs, other = metered(None, m=1_000_000), EmbeddingUsage()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await hangs.embed("one", other)
        assert other == spent

    async def test_an_unknown_price_bounds_nothing_and_is_counted_as_nothing(self):
        embedder, spent = metered(5), EmbeddingUsage()
        with pytest.raises(PriceUnknownError, match="MESHWRIGHT_PRICES"):
            embedder.most_micros("one")
        await embedder.embed("one", spent)
        assert (spent.tokens, spent.cost_micros) == (5, 0)

    async def test_the_embedder_of_this_process_is_free(self):
        embedder, spent = MeteredEmbedder(HashingEmbedder(), Prices()), EmbeddingUsage()
        assert len(await embedder.embed("one", spent)) == embedder._embedder.dimensions
        assert (embedder.most_micros("one"), spent.ByteSize()) == (0, 0)


@pytest.fixture
async def server():
    async with listening(EmbeddingServer()) as served:
        served.gives(axis(0), tokens=7)
        yield served


@pytest.fixture
def start(mesh, dial, tmp_path, server):
    """Starts an agent whose model and whose embedder cost a micro a token; returns its client."""

    async def started(model, *, known=("m", "t-1"), **facts):
        prices = tmp_path / "prices.yaml"
        prices.write_text(json.dumps({"t-1": TOKEN} | dict.fromkeys(known, TOKEN)))
        agent = Agent("clerk", "Answer.", model=model, **facts)
        process = await mesh.agent(agent, prices=str(prices), embedder=f"openai:m@{server.url}")
        process.router._chain = Chain(pause_s=0)
        return dial(process)

    return started


def wants(name, **arguments):
    return asked(f"memory.{name}", **arguments)


def results(events):
    return [event.tool_result for event in events if event.HasField("tool_result")]


def costs(result):
    return {(row.type, row.model or row.tool): row.usage.cost_micros for row in result.usage_shares}


class TestMemory:
    async def test_what_is_remembered_and_recalled_is_counted_by_type(self, start, becomes):
        client = await start(Teller(wants("remember", fact=FACT), wants("recall", about="The boat?")), remembers=True)
        events = await client.steps()
        remembered, recalled = results(events)
        for result in (remembered, recalled):
            assert result.embedding == EmbeddingUsage(model="m", tokens=7, cost_micros=7)
            assert (result.cost_micros, result.reserved_micros) == (0, 0)
        result = events[-1].result
        assert (result.usage.cost_micros, result.usage.embedding_tokens) == (12 + 12 + 120 + 14, 14)
        assert costs(result)[COST_TYPE_EMBEDDING, "m"] == 14
        assert costs(result)[COST_TYPE_LLM, "t-1"] == 144
        assert result.tokens_used == 144
        assert (await client.get(result.task_id)).usage == result.usage

        async def table(by):
            rows = (await client.tasks.GetCosts(GetCostsRequest(by=by))).rows
            return {row.name: (row.cost_micros, row.tokens) for row in rows}

        await becomes(lambda: table(COST_GROUPING_TYPE))
        assert await table(COST_GROUPING_TYPE) == {"llm": (144, 144), "embedding": (14, 14), "tool": (0, 0)}
        assert await table(COST_GROUPING_MODEL) == {"t-1": (144, 144), "m": (14, 14)}

    async def test_a_budget_has_it_set_aside_before_and_settled_after(self, start, server, store, made):
        client = await start(Teller(wants("remember", fact=FACT), wants("recall", about="The boat?")), remembers=True)
        events = await client.steps(cost_budget_micros=MUCH)
        intents = [event.tool_call for event in events if event.HasField("tool_call")]
        assert [one.cost_micros for one in intents] == [most_tokens(FACT), most_tokens("The boat?")]
        assert [one.reserved_micros for one in results(events)] == [one.cost_micros for one in intents]
        usage = events[-1].result.usage
        assert (usage.cost_micros, usage.estimated_cost_micros) == (158, 0)
        assert len(server.requests) == 2

    async def test_what_is_dearer_than_what_is_left_is_refused_and_nobody_is_asked(self, start, server):
        client = await start(Teller(wants("remember", fact="x" * 2_000)), remembers=True)
        events = await client.steps(cost_budget_micros=1_000)
        (refused,) = results(events)
        assert refused.outcome == TOOL_OUTCOME_DENIED
        assert MeshError.from_status(refused.error).reason == "BUDGET_EXCEEDED"
        assert server.requests == []

    async def test_looking_among_no_memories_embeds_nothing(self, start, server):
        client = await start(Teller(wants("recall", about="The boat?")), remembers=True)
        events = await client.steps(cost_budget_micros=MUCH)
        (recalled,) = results(events)
        assert (recalled.outcome, recalled.HasField("embedding")) == (TOOL_OUTCOME_OK, False)
        assert (recalled.reserved_micros > 0, events[-1].result.usage.cost_micros) == (True, 132)
        assert server.requests == []

    @pytest.mark.parametrize(("status", "is_charged"), [(503, True), (401, False)])
    async def test_a_failure_costs_what_it_may_have_cost_once(self, start, server, status, is_charged):
        server.replies.clear()
        server.fails(status)
        client = await start(Teller(wants("remember", fact=FACT)), remembers=True)
        events = await client.steps(cost_budget_micros=MUCH)
        (failed,) = results(events)
        assert failed.outcome == TOOL_OUTCOME_ERROR
        most = most_tokens(FACT) if is_charged else 0
        usage = events[-1].result.usage
        assert (usage.cost_micros, usage.estimated_cost_micros) == (132 + most, most)
        assert failed.reserved_micros == most_tokens(FACT)

    async def test_an_outcome_that_is_asked_for_again_says_what_it_took_and_asks_nobody(self, start, mesh, server):
        await start(Teller(), remembers=True)
        host = mesh.agents["clerk"].host
        pin = next(f"{one.name}@{one.version}" for one in host.tools if one.name == "memory.remember")
        allowed = grant(agent_id="clerk", tools=[pin])
        first = await host.invoke(allowed, pin, json.dumps({"fact": FACT}), "key-1")
        again = await host.invoke(allowed, pin, json.dumps({"fact": FACT}), "key-1")
        assert (again.replayed, len(server.requests)) == (True, 1)
        assert first.embedding == again.embedding == EmbeddingUsage(model="m", tokens=7, cost_micros=7)

    async def test_where_nobody_knows_the_price_a_budget_refuses_the_call(self, start, server):
        client = await start(Teller(wants("remember", fact=FACT)), known=(), remembers=True)
        events = await client.steps(cost_budget_micros=MUCH)
        assert MeshError.from_status(results(events)[0].error).reason == "PRICE_UNKNOWN"
        assert server.requests == []

    async def test_the_embedder_of_this_process_writes_nothing_more(self, mesh, dial, tmp_path):
        agent = Agent("clerk", "Answer.", model=Teller(wants("remember", fact=FACT)), remembers=True)
        prices = tmp_path / "prices.yaml"
        prices.write_text(json.dumps({"t-1": TOKEN}))
        client = dial(await mesh.agent(agent, prices=str(prices)))
        events = await client.steps(cost_budget_micros=MUCH)
        (remembered,) = results(events)
        assert (remembered.HasField("embedding"), remembered.reserved_micros) == (False, 0)


class TestPaying:
    SPENT = EmbeddingUsage(model="m", tokens=7, cost_micros=7)

    def paid(self, tool, held, outcome=TOOL_OUTCOME_OK, embedding=SPENT):
        result = ToolResult(outcome=outcome)
        pay(result, RECORD, tool, held, embedding=embedding)
        return result

    def test_what_nobody_knows_of_costs_all_that_was_set_aside(self):
        lost = self.paid("memory.remember", 20, TOOL_OUTCOME_UNKNOWN, EmbeddingUsage())
        assert lost.embedding == EmbeddingUsage(cost_micros=20, estimated=True)
        assert (lost.cost_micros, lost.reserved_micros) == (0, 20)
        free = self.paid("memory.remember", 0, TOOL_OUTCOME_UNKNOWN, EmbeddingUsage())
        assert not free.HasField("embedding")

    def test_nobody_reads_of_other_tools_what_they_say_that_embedding_took(self):
        other = self.paid("docs.search", 20)
        assert (other.HasField("embedding"), other.cost_micros) == (False, 20)

    def test_what_it_costs_is_a_metric(self):
        counter = telemetry.COST.labels("clerk", "default", "embedding", "m")
        before = counter._value.get()
        self.paid("memory.recall", 20)
        assert counter._value.get() == before + 7


class TestQuestions:
    """A response cache that compares questions embeds each one that is not known yet."""

    PROMPT, OTHER = "What is the refund window?", "what's the refund window, please?"

    async def test_it_is_journaled_with_the_answer_and_set_aside_with_its_call(self, start, kinds):
        client = await start(Teller(), cache="semantic")
        events = await client.steps(self.PROMPT, cost_budget_micros=MUCH)
        assert kinds(events) == ["started", "reservation", "llm_call", "result"]
        said, result = events[2].llm_call, events[-1].result
        assert said.embedding == EmbeddingUsage(model="m", tokens=7, cost_micros=7)
        assert said.reserved_micros == events[1].reservation.cost_micros
        assert (said.usage.cost_micros, result.usage.cost_micros, result.usage.embedding_tokens) == (120, 127, 7)
        assert costs(result) == {(COST_TYPE_LLM, "t-1"): 120, (COST_TYPE_EMBEDDING, "m"): 7}

    async def test_an_answer_from_before_costs_what_finding_it_took(self, start):
        model = Teller()
        client = await start(model, cache="semantic")
        await client.run(self.PROMPT)
        alike = await client.run(self.OTHER)
        assert (alike.usage.cost_micros, alike.usage.model_calls, model.asked) == (7, 0, 1)
        same = await client.run(self.PROMPT)
        assert (same.usage.cost_micros, model.asked) == (0, 1)

    async def test_only_the_first_round_pays(self, start, server):
        client = await start(Teller(wants("recall", about="x")), cache="semantic", remembers=True)
        result = await client.run(self.PROMPT, cost_budget_micros=MUCH)
        assert (result.usage.cost_micros, len(server.requests)) == (12 + 120 + 7, 1)

    @pytest.mark.parametrize("budget", [20, 45, 100, 400])
    async def test_no_more_is_spent_than_there_is(self, start, budget):
        client = await start(Teller(), cache="semantic")
        events = await client.steps(self.PROMPT, cost_budget_micros=budget)
        assert all(event.reservation.cost_micros <= budget for event in events)
        result = events[-1].result
        if not any(event.HasField("reservation") for event in events):
            assert (result.usage.cost_micros, result.finish_reason) == (0, FINISH_REASON_COST_BUDGET_EXCEEDED)

    async def test_what_the_model_then_refuses_is_spent_all_the_same(self, start):
        client = await start(Teller(ModelRejectedError("no")), cache="semantic")
        events = await client.steps(self.PROMPT, cost_budget_micros=MUCH)
        released = next(e.reservation for e in events if e.reservation.state == RESERVATION_STATE_RELEASED)
        assert released.embedding.cost_micros == 7
        result = events[-1].result
        assert (result.status, result.usage.cost_micros, costs(result)) == (
            TASK_STATUS_FAILED,
            7,
            {(COST_TYPE_EMBEDDING, "m"): 7},
        )

    async def test_an_embedder_that_fails_costs_nobody_an_answer(self, start, server):
        server.replies.clear()
        server.fails(503)
        client = await start(Teller(), cache="semantic")
        events = await client.steps(self.PROMPT, cost_budget_micros=MUCH)
        result = events[-1].result
        most = most_tokens(self.PROMPT)
        assert (result.status, result.usage.estimated_cost_micros) == (TASK_STATUS_COMPLETED, most)
        assert result.usage.cost_micros == 120 + most

    async def test_where_nobody_knows_the_price_a_budget_fails_the_task(self, start, server):
        client = await start(Teller(), known=(), cache="semantic")
        result = await client.run(self.PROMPT, cost_budget_micros=MUCH)
        assert MeshError.from_status(result.error).reason == "PRICE_UNKNOWN"
        assert server.requests == []
        assert (await client.run(self.PROMPT)).usage.cost_micros == 120
