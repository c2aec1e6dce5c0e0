"""What a task has written costs once, with its end, where storage has a price."""

import json

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.embedders.embedder import DIMENSIONS
from meshwright.agents.models.model import Answer, Call, Usage
from meshwright.gen.agents.v1.task_pb2 import (
    COST_TYPE_LLM,
    COST_TYPE_STORAGE,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
)
from meshwright.gen.agents.v1.task_service_pb2 import COST_GROUPING_TYPE, GetCostsRequest
from tests.agents.test_context_in_a_task import Talker
from tests.agents.test_responses import Teller, wants

A_MICRO_A_BYTE = 2**30


@pytest.fixture
def start(mesh, dial, tmp_path):
    """Starts an agent whose model costs a micro a token and whose bytes cost one each; returns its client."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(json.dumps({"t-1": {"input": 1_000_000, "output": 1_000_000}}))

    async def started(model, *, name="clerk", price=A_MICRO_A_BYTE, **facts):
        process = await mesh.agent(
            Agent(name, "Answer.", model=model, **facts), prices=str(prices), storage_micros_per_gib=price
        )
        return dial(process)

    return started


@pytest.fixture
def written(journal, made):
    """Returns the bytes of a task's journal, its result apart, and of its result."""

    async def sizes(task_id):
        found = [len(entry.payload) async for entry in journal.replay(made.name(task_id))]
        return sum(found[:-1]), found[-1]

    return sizes


async def test_a_task_pays_for_the_bytes_of_its_journal(start, written, becomes):
    client = await start(Teller("word " * 1_000))
    result = await client.run()
    before, last = await written(result.task_id)
    assert before + 5_000 < result.storage.bytes <= before + last
    assert result.storage.bytes > before + last - 100  # all but what is said of storage itself
    assert result.storage.cost_micros == result.usage.stored_bytes == result.storage.bytes
    assert result.usage.cost_micros == 120 + result.storage.bytes
    rows = {row.type: row.usage.cost_micros for row in result.usage_shares}
    assert list(rows.values()) == sorted(rows.values(), reverse=True)
    assert rows == {COST_TYPE_LLM: 120, COST_TYPE_STORAGE: result.storage.bytes}
    later = await client.get(result.task_id)
    assert (later.usage, later.storage) == (result.usage, result.storage)

    async def table():
        found = (await client.tasks.GetCosts(GetCostsRequest(by=COST_GROUPING_TYPE))).rows
        return {row.name: row.cost_micros for row in found}

    await becomes(table)
    assert await table() == {"llm": 120, "storage": result.storage.bytes}


async def test_by_default_nothing_is_weighed(start):
    client = await start(Teller(), price=0)
    result = await client.run()
    assert not result.HasField("storage")
    assert (result.usage.cost_micros, result.usage.stored_bytes) == (120, 0)


async def test_a_part_of_a_micro_is_one(start):
    client = await start(Teller(), price=1)
    assert (await client.run()).storage.cost_micros == 1


async def test_what_is_remembered_counts(start, written):
    fact = "The boat is called Albatroß."
    client = await start(Teller(wants("memory.remember", fact=fact)), remembers=True)
    result = await client.run()
    before, last = await written(result.task_id)
    memory = len(fact.encode()) + DIMENSIONS
    assert before + last - 100 + memory < result.storage.bytes <= before + last + memory


async def test_a_parent_pays_for_its_children_and_for_its_copy_of_what_they_wrote(start, written):
    await start(Teller("word " * 1_000))
    asks = Answer("", (Call("c1", "ask.clerk", {"prompt": "Go."}),), Usage(10, 2), "teller", "t-1", "tool_calls")
    boss = await start(Teller(asks), name="boss", delegates=["clerk"])
    events = await boss.steps()
    result = events[-1].result
    below = next(e.child.event.result for e in events if e.HasField("child") and e.child.event.HasField("result"))
    before, last = await written(result.task_id)
    assert result.storage.bytes <= before + last
    assert result.storage.bytes > below.storage.bytes > 5_000
    assert result.usage.stored_bytes == result.storage.bytes + below.storage.bytes
    assert result.usage.cost_micros == 120 + 12 + 120 + result.usage.stored_bytes
    rows = {(row.agent_id, row.type): row.usage.cost_micros for row in result.usage_shares}
    assert rows["clerk", COST_TYPE_STORAGE] == below.storage.bytes
    assert rows["boss", COST_TYPE_STORAGE] == result.storage.bytes
    assert sum(rows.values()) == result.usage.cost_micros
    assert (await boss.get(result.task_id)).usage == result.usage


async def test_an_answer_that_fits_its_budget_stands_whatever_its_bytes_cost(start):
    client = await start(Teller("word " * 1_000))
    result = await client.run(cost_budget_micros=5_000, token_budget=1_000)
    assert (result.status, result.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_STOP)
    assert result.storage.bytes > 5_000
    assert result.usage.cost_micros == 120 + result.storage.bytes


async def test_a_task_that_fails_pays_too(start):
    client = await start(Teller(ValueError("broken")))
    result = await client.run()
    assert result.status == TASK_STATUS_FAILED
    assert result.usage.cost_micros == result.storage.bytes > 0


async def test_a_successor_weighs_what_the_worker_before_has_written(mesh, start, becomes, written):
    first, second = Talker(), Talker()
    first.may_end.clear()
    client = await start(first)
    task = await client.submit()
    await becomes(lambda: first.prompts)
    await mesh.stop(mesh.agents["clerk"])
    again = await start(second)
    result = await again.ended(task.task_id)
    before, last = await written(result.task_id)
    assert before + last - 100 < result.storage.bytes <= before + last
