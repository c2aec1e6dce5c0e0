"""Fifty tasks at once on one budget, in processes that are killed: it is kept to the micro, in journal and counters."""

import asyncio
import json
import time

import pytest

from meshwright.agents.escrow import day_of, trace_of
from meshwright.agents.task import TaskName, counters_of, leaf
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_ASK,
    DECISION_FAIL,
    DECISION_RAISE_BUDGET,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_RUNNING,
)
from tests.agents.conftest import come_true
from tests.e2e.conftest import HERE

CHILDREN = 50
USAGE = {"input_tokens": 20, "output_tokens": 10}
FIRST = {"tool_calls": [{"name": "none"}], "usage": {"input_tokens": 20, "output_tokens": 1_980}}
"""Leaves too little of the first budget for another call."""
ENOUGH, SCARCE = 200_000, 40_000
SESSION = trace_of(TaskName("default", "default", "s1"))
SLOTS = (f"session/{SESSION}", "user/default/default/{day}", "tenant/default/{day}", "mesh/{day}")


def asking(agent, many):
    return {"tool_calls": [{"name": f"ask.{agent}", "arguments": {"prompt": "Help."}}] * many, "usage": USAGE}


def working(text=""):
    calls = [] if text else [{"name": "none"}]
    return {"text": text, "tool_calls": calls, "usage": USAGE, "latency_ms": 400}


@pytest.fixture
def crew(workers, tmp_path):
    """Starts processes of the crew; each is told a shared budget of its own, or none."""
    done = {"text": "Done.", "usage": USAGE}
    script = {
        "boss": [FIRST, asking("foreman", 2), done],
        "foreman": [asking("helper", CHILDREN // 2), done],
        "helper": [working(), working(), working("Helped.")],
    }
    (tmp_path / "crew.yaml").write_text(json.dumps({"agents": script}))
    (tmp_path / "prices.json").write_text(json.dumps({"crew.yaml": {"input": 1_000_000, "output": 1_000_000}}))
    facts = {"model": f"scripted:{tmp_path / 'crew.yaml'}", "prices": str(tmp_path / "prices.json")}

    async def started(*names, **settings):
        starting = (workers.start(HERE / "crew.py", name, concurrency=CHILDREN, **facts, **settings) for name in names)
        return await asyncio.gather(*starting)

    return started


@pytest.fixture
def counters(store):
    """Reads what trees have taken from the budgets of the session, the user, the tenant and the mesh."""

    async def read():
        day = day_of(int(time.time() * 1000))
        keys = (partition_key(segment(slot.format(day=day)), "escrow") for slot in SLOTS)
        return [int(value or 0) for value in await store.client.mget(*keys)]

    return read


async def strike(reserved, *workers):
    """Kills processes while many calls of helpers are under way."""
    for worker in workers:
        await come_true(lambda: is_busy(reserved), patience_s=20)
        await worker.kill()


async def is_busy(reserved):
    return await reserved() > SCARCE // 4


@pytest.fixture
def reserved(store):
    async def read():
        return int(await store.client.hget(partition_key(0, "task", "default/default/t1"), "reserved_micros") or 0)

    return read


def check_journal(events, budget, *, is_raised=True):
    """Follows a root's journal: never is more spent and set aside than there is; returns what was spent."""
    spent = held = 0
    for event in events:
        if is_raised and event.HasField("input_resolved"):
            budget = event.input_resolved.cost_budget_micros
        taken = counters_of(event)
        spent += taken.get("cost_micros", 0)
        held += taken.get("reserved_micros", 0)
        assert spent + held <= budget, event
    return spent + held  # what is open at the end is charged


async def begin(boss, budget):
    """Submits the task with little money; it asks for more after its first call, and is given `budget`."""
    limits = {"cost_budget_micros": 2_100, "max_steps": 10, "on_budget_exceeded": BUDGET_ACTION_ASK}
    await boss.client.submit(task_id="t1", session_id="s1", **limits)
    (pending,) = await boss.client.asked("t1")
    assert "cost_budget_micros: 2000 of 2100" in pending.prompt
    raised = {"cost_budget_micros": budget, "token_budget": 200_000}
    await boss.client.resolve("t1", pending, DECISION_RAISE_BUDGET, **raised)
    return pending


async def test_fifty_children_keep_to_a_budget_that_a_person_has_raised(crew, counters, reserved):
    limits = {f"budget_{name}_micros": 10**7 for name in ("session", "user_day", "tenant_day", "global_day")}
    (accepting,), (boss, _, *helpers) = await asyncio.gather(
        crew("boss", **limits), crew("boss", "foreman", "helper", "helper")
    )
    await begin(accepting, ENOUGH)
    await strike(reserved, *helpers, accepting)  # whichever of the helpers calls models just then
    await crew("helper", **limits)
    response = await boss.client.ended("t1")
    assert (response.status, response.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_STOP)
    events, spent = await boss.client.watch("t1"), response.usage.cost_micros
    assert sum(leaf(event).HasField("delegation") for event in events) == CHILDREN + 2
    assert check_journal(events, 2_100) == spent <= ENOUGH
    assert 0 < response.usage.estimated_cost_micros < spent
    await come_true(lambda: is_settled(counters, [spent] * 4))


async def test_fifty_children_keep_to_the_budget_of_a_day(crew, counters, reserved):
    (boss,), (_, helper, _) = await asyncio.gather(
        crew("boss", budget_user_day_micros=SCARCE), crew("foreman", "helper", "helper")
    )
    asked = await begin(boss, 10 * ENOUGH)
    striking = asyncio.create_task(strike(reserved, helper))
    most = 0
    while (task := await boss.client.get("t1")).status == TASK_STATUS_RUNNING:
        most = max(most, (await counters())[1])
    await striking
    for pending in task.pending_inputs:  # it has too little left for its last words
        assert pending.input_id != asked.input_id
        await boss.client.resolve("t1", pending, DECISION_FAIL)
    response, events = await boss.client.ended("t1"), await boss.client.watch("t1")
    ends = [leaf(event).result.finish_reason for event in events if leaf(event).HasField("result")]
    assert FINISH_REASON_COST_BUDGET_EXCEEDED in ends
    spent = check_journal(events, SCARCE, is_raised=False)
    assert (spent, most <= SCARCE) == (response.usage.cost_micros, True)
    await come_true(lambda: is_settled(counters, [0, spent, 0, 0]))


async def is_settled(counters, wanted):
    return await counters() == wanted
