"""What becomes of tasks, and what budgets refuse, as metrics count it."""

import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.escrow import day_of
from meshwright.core import telemetry
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.task_service_pb2 import CancelTaskRequest
from meshwright.registry import tool

DEAR = {"input": 1_000_000, "output": 1_000_000}


@tool(effect="pure")
def look(n: int = 0) -> int:
    """Looks."""
    return n


@tool(effect="pure", cost_micros=700)
def dear(n: int = 0) -> int:
    """Costs 700 micros."""
    return n


def reply(*calls, text=""):
    asked = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"text": text, "tool_calls": asked, "usage": {"input_tokens": 100, "output_tokens": 50}}


DONE = reply(text="Done.")


@pytest.fixture
def start(mesh, dial, tmp_path):
    """Starts an agent of a name of its own, so that its counters are, too."""
    (tmp_path / "prices.yaml").write_text(json.dumps({f"c{n}.yaml": DEAR for n in range(9)}))

    async def started(name, *replies, on_outage="fail", **settings):
        script = json.dumps({"agents": {name: list(replies)}})
        author = Agent(name, "Work.", tools=[look, dear], on_outage=on_outage)
        return dial(await mesh.agent(author, script=script, prices=str(tmp_path / "prices.yaml"), **settings))

    return started


def counted(metric, *labels):
    return metric.labels(*labels)._value.get()


async def test_a_task_is_counted_when_it_is_accepted_and_when_it_ends(start):
    client = await start("c1", DONE)
    await client.run(task_id="t1")
    await client.run(task_id="t1")
    assert counted(telemetry.TASKS_ACCEPTED, "c1", "default") == 1
    assert counted(telemetry.TASKS_ENDED, "c1", "COMPLETED", "FINISH_REASON_STOP") == 1
    assert telemetry.TASK_SECONDS.labels("c1")._sum.get() > 0


async def test_a_tenants_money_and_tokens_are_counted(start):
    client = await start("c2", reply(("dear", {})), DONE)
    response = await client.run()
    spent = counted(telemetry.COST, "c2", "default", "llm", "c2.yaml")
    assert spent + counted(telemetry.COST, "c2", "default", "tool", "dear") == response.usage.cost_micros == 1_000
    tokens = [counted(telemetry.TOKENS, "c2", "default", "c2.yaml", kind) for kind in ("input", "output")]
    assert tokens == [200, 100]


async def test_tool_calls_that_a_budget_refuses_are_counted(start):
    client = await start("c3", reply(*[("look", {"n": n}) for n in range(4)]), DONE)
    await client.run(max_tool_calls=3)
    assert counted(telemetry.BUDGET_REFUSALS, "c3", "default", "tool") == 1


async def test_tool_calls_that_shared_money_does_not_reach_for_are_counted(start):
    client = await start("c4", reply(("dear", {"n": 1}), ("dear", {"n": 2})), DONE, budget_tenant_day_micros=1_500)
    await client.run(token_budget=1_000)
    assert counted(telemetry.BUDGET_REFUSALS, "c4", "default", "tool") == 2


@pytest.mark.parametrize("on_outage", ["fail", "degrade"])
async def test_a_step_that_a_budget_refuses_is_counted(start, on_outage):
    before = counted(telemetry.BUDGET_REFUSALS, "c5", "default", "step")
    client = await start("c5", reply(("look", {})), DONE, on_outage=on_outage)
    await client.run(max_steps=1)
    assert counted(telemetry.BUDGET_REFUSALS, "c5", "default", "step") == before + 1


async def test_a_step_that_a_shared_budget_refuses_is_counted_as_such(start, store):
    client = await start("c8", DONE, budget_tenant_day_micros=10_000)
    (now,) = await store.run(("TIME",))
    slot = segment(f"tenant/default/{day_of(int(now[0]) * 1_000)}")
    await store.client.set(partition_key(slot, "escrow"), 9_999)
    await client.run()
    assert counted(telemetry.BUDGET_REFUSALS, "c8", "default", "shared_step") == 1
    assert counted(telemetry.BUDGET_REFUSALS, "c8", "default", "step") == 0


async def test_a_task_that_a_shared_budget_refuses_is_counted(start, store):
    client = await start("c6", DONE, budget_tenant_day_micros=10_000)
    (now,) = await store.run(("TIME",))
    slot = segment(f"tenant/default/{day_of(int(now[0]) * 1_000)}")
    await store.client.set(partition_key(slot, "escrow"), 10_000)
    with pytest.raises(grpc.aio.AioRpcError):
        await client.run()
    assert counted(telemetry.BUDGET_REFUSALS, "c6", "default", "task") == 1
    assert counted(telemetry.TASKS_ACCEPTED, "c6", "default") == 0


async def test_a_task_that_ends_while_nobody_runs_it_is_counted(start, becomes):
    client = await start("c7", DONE, role="server")
    await client.submit(task_id="t1")
    await client.tasks.CancelTask(CancelTaskRequest(task_id="t1"))

    async def is_counted():
        return counted(telemetry.TASKS_ENDED, "c7", "CANCELLED", "FINISH_REASON_CANCELLED") == 1

    await becomes(is_counted)


async def test_a_task_whose_content_cannot_be_read_is_counted_when_it_ends(start, store, becomes, keys_file):
    client = await start("c0", DONE, role="server", content_keys_file=str(keys_file))
    await client.submit(task_id="t1")
    key = partition_key(0, "task", "default/default/t1")
    (sealed,) = await store.run(("HGET", key, "request"))
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    await store.run(("HSET", key, "request", changed), ("SADD", partition_key(0, "ending"), "default/default/t1"))

    async def is_counted():
        return counted(telemetry.TASKS_ENDED, "c0", "FAILED", "FINISH_REASON_ERROR") == 1

    await becomes(is_counted)


async def test_a_task_that_is_given_up_is_a_dead_letter(start, store, becomes):
    client = await start("c8", DONE, role="server")
    await client.submit(task_id="t1")
    await store.run(
        ("HSET", partition_key(0, "task", "default/default/t1"), "poison", 1),
        ("SADD", partition_key(0, "ending"), "default/default/t1"),
    )

    async def is_counted():
        return counted(telemetry.DEAD_LETTERS, "c8") == 1

    await becomes(is_counted)
    assert counted(telemetry.TASKS_ENDED, "c8", "FAILED", "FINISH_REASON_ERROR") == 1
