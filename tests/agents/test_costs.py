"""What a day has cost: each ended tree once, by agent, model, tool, type, tenant, session and user."""

import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.costs import MOST_DAYS, Costs
from meshwright.agents.escrow import day_of
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse, Usage, UsageShare
from meshwright.gen.agents.v1.task_service_pb2 import (
    COST_GROUPING_AGENT,
    COST_GROUPING_MODEL,
    COST_GROUPING_SESSION,
    COST_GROUPING_TENANT,
    COST_GROUPING_TOOL,
    COST_GROUPING_TYPE,
    COST_GROUPING_USER,
    GetCostsRequest,
)
from meshwright.registry import tool

DEAR = {"input": 1_000_000, "output": 1_000_000}
SPENT = {"input_tokens": 100, "output_tokens": 50}


@tool(effect="pure", cost_micros=70)
def dear(n: int = 0) -> int:
    """Costs 70 micros."""
    return n


@pytest.fixture
def start(mesh, dial, tmp_path):
    async def started(name, *replies, delegates=()):
        prices = tmp_path / "prices.yaml"
        prices.write_text(json.dumps({"worker.yaml": DEAR, "boss.yaml": DEAR}))
        author = Agent(name, "Work.", tools=[dear], delegates=delegates)
        script = json.dumps({"agents": {name: list(replies)}})
        return dial(await mesh.agent(author, script=script, prices=str(prices)))

    return started


def rows(response):
    return {row.name: (row.cost_micros, row.tokens) for row in response.rows}


async def test_a_tree_is_counted_once_by_everything_that_it_has_to_do_with(start, becomes):
    await start("worker", {"tool_calls": [{"name": "dear"}], "usage": SPENT}, {"text": "Helped.", "usage": SPENT})
    asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Help."}}], "usage": SPENT}
    boss = await start("boss", asks, {"text": "Done.", "usage": SPENT}, delegates=["worker"])
    response = await boss.run(session_id="s1")
    assert response.usage.cost_micros == 670

    async def table(by):
        return rows(await boss.tasks.GetCosts(GetCostsRequest(by=by)))

    async def is_counted():
        return await table(COST_GROUPING_AGENT)

    await becomes(is_counted)
    assert await table(COST_GROUPING_AGENT) == {"worker": (370, 300), "boss": (300, 300)}
    assert await table(COST_GROUPING_MODEL) == {"worker.yaml": (300, 300), "boss.yaml": (300, 300)}
    assert await table(COST_GROUPING_TOOL) == {"dear": (70, 0)}
    assert await table(COST_GROUPING_TYPE) == {"llm": (600, 600), "tool": (70, 0)}
    assert await table(COST_GROUPING_TENANT) == await table(COST_GROUPING_USER) == {"default": (670, 600)}
    assert await table(COST_GROUPING_SESSION) == {"default/s1": (670, 600)}


async def test_a_tree_that_was_free_is_counted_by_its_tokens(start, becomes):
    free = await start("idler", {"text": "Done.", "usage": SPENT})
    response = await free.run()
    assert (response.usage.cost_micros, response.usage.input_tokens) == (0, 100)

    async def table(by):
        return rows(await free.tasks.GetCosts(GetCostsRequest(by=by)))

    async def is_counted():
        return await table(COST_GROUPING_AGENT)

    await becomes(is_counted)
    assert await table(COST_GROUPING_AGENT) == {"idler": (0, 150)}
    assert await table(COST_GROUPING_MODEL) == {"idler.yaml": (0, 150)}
    assert await table(COST_GROUPING_TYPE) == {"llm": (0, 150)}
    assert await table(COST_GROUPING_TENANT) == await table(COST_GROUPING_USER) == {"default": (0, 150)}


@pytest.mark.parametrize(("tokens", "waits"), [((3, 0), True), ((0, 2), True), ((0, 0), False)])
async def test_what_used_tokens_is_relayed(journal, made, claimed, tokens, waits):
    claim = await claimed(made.task())
    await journal.append(claim, "a", [made.said(tokens=tokens)])
    await journal.finish(claim, "COMPLETED", [made.result()])
    assert [name for _, name in await journal.outbox(0)] == [claim.name] * waits


async def test_a_task_that_used_nothing_leaves_nothing_to_relay(journal, made, claimed):
    claim = await claimed(made.task())
    await journal.finish(claim, "COMPLETED", [made.result()])
    assert await journal.outbox(0) == []


@pytest.fixture
def counted(journal, made, claimed):
    """Counts a task that has cost something, however often."""

    async def count(task_id, *shares, times=1):
        request = TaskRequest(prompt="Go.", session_id="s1")
        claim = await claimed(made.task(task_id, request=request))
        await journal.append(claim, "a", [made.said()])
        await journal.finish(claim, "COMPLETED", [made.result()])
        record = await journal.record(claim.name)
        response = TaskResponse(usage=Usage(cost_micros=10), usage_shares=shares)
        for _ in range(times):
            await Costs(journal).count(record, response)
        return day_of(record.created)

    return count


async def test_an_entry_that_is_relayed_again_adds_nothing(journal, counted):
    share = UsageShare(agent_id="worker", model="m", usage=Usage(cost_micros=10, input_tokens=5))
    day = await counted("t1", share, times=3)
    table = await Costs(journal).table("default", GetCostsRequest(from_day=day))
    assert rows(table) == {"worker": (10, 5)}
    assert not (await Costs(journal).table("other", GetCostsRequest(from_day=day))).rows


async def test_names_without_end_are_summed_in_one_row(journal, counted):
    for task in range(11):
        shares = [UsageShare(tool=f"tool{task}.{n}", usage=Usage(cost_micros=1)) for n in range(100)]
        day = await counted(f"t{task}", *shares)
    table = rows(await Costs(journal).table("default", GetCostsRequest(by=COST_GROUPING_TOOL, from_day=day)))
    assert len(table) == 1_001
    assert table["*"] == (100, 0)
    assert sum(cost for cost, _ in table.values()) == 1_100


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"from_day": "yesterday"}, "from_day"),
        ({"from_day": "2026-02-30"}, "from_day"),
        ({"from_day": "2026-02-01", "to_day": "2026-01-31"}, "to_day"),
        ({"from_day": "2026-01-01", "to_day": f"2026-02-{MOST_DAYS - 30}"}, "to_day"),
        ({"from_day": "9999-12-31", "to_day": "x" * 10_000}, "to_day"),
        ({"by": 99}, "by"),
    ],
)
async def test_what_is_no_day_or_no_grouping_is_refused(start, fields, wrong):
    client = await start("worker", {"text": "Done."})
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await client.tasks.GetCosts(GetCostsRequest(**fields))
    error = MeshError.from_rpc(failed.value)
    assert (error.reason, list(error.fields)) == ("INVALID_REQUEST", [wrong])


async def test_a_session_that_is_forgotten_has_cost_what_it_has_cost_under_no_name(journal, counted, made, store):
    day = await counted("t1", UsageShare(agent_id="worker", usage=Usage(cost_micros=10)))
    await counted("t2")
    costs = Costs(journal)
    for _ in range(2):
        await costs.forget(made.name(), "s1")
        table = await costs.table("default", GetCostsRequest(by=COST_GROUPING_SESSION, from_day=day))
        assert rows(table) == {"*": (20, 0)}
    await costs.forget(made.name(principal="ann"), "s1")
    await counted("t3")
    table = await costs.table("default", GetCostsRequest(by=COST_GROUPING_SESSION, from_day=day))
    assert rows(table) == {"*": (20, 0), "default/s1": (10, 0)}
    assert rows(await costs.table("default", GetCostsRequest(from_day=day))) == {"worker": (10, 0)}
