"""One budget, fifty tasks at once: whatever they do, and whoever dies, it is never exceeded by a micro."""

import asyncio
import contextlib
import json
import os
import random
import sys

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.reply import Short
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    LlmCall,
    ModelReservation,
    StepEvent,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_ASK,
    DECISION_RAISE_BUDGET,
    TASK_STATUS_COMPLETED,
    TaskRequest,
    Usage,
)

CHILDREN = 50
BUDGET = 100_000


def opened(micros):
    return StepEvent(reservation=ModelReservation(model="m", cost_micros=micros, state=RESERVATION_STATE_OPEN))


def charged(micros):
    return StepEvent(reservation=ModelReservation(model="m", cost_micros=micros, state=RESERVATION_STATE_CHARGED))


def answered(micros, held):
    return StepEvent(llm_call=LlmCall(model="m", usage=Usage(cost_micros=micros), reserved_micros=held))


@pytest.fixture
def counters(store, made):
    """Reads what a task's record says of money."""

    async def read(task_id="t1"):
        key = partition_key(0, "task", made.name(task_id).ref)
        found = await store.client.hmget(key, "cost_micros", "reserved_micros", "estimated_cost_micros")
        return tuple(int(value or 0) for value in found)

    return read


def asking(made, micros, **facts):
    return made.task(request=TaskRequest(prompt="Go.", cost_budget_micros=micros), **facts)


class TestScripts:
    async def test_a_reservation_counts_at_every_task_above_and_an_answer_settles_it(
        self, journal, made, claimed, counters
    ):
        root = asking(made, 1_000)
        claim = await claimed(root)
        child = made.child(root)
        working = await claimed(child)
        await journal.spend(working, "r", [opened(600)], "", is_progress=False)
        assert await counters() == await counters(child.name.task_id) == (0, 600, 0)
        assert await journal.spend(claim, "r", [opened(401)], "", is_progress=False) == Short(left=400)
        await journal.append(working, "a", [answered(100, 600)])
        assert await counters() == (100, 0, 0)
        assert not isinstance(await journal.spend(claim, "r", [opened(900)], "", is_progress=False), Short)

    async def test_a_repeated_reservation_is_one(self, journal, made, claimed, counters):
        claim = await claimed(asking(made, 1_000))
        first = await journal.spend(claim, "r", [opened(600)], "", is_progress=False)
        assert await journal.spend(claim, "r", [opened(600)], "", is_progress=False) == first
        assert await counters() == (0, 600, 0)

    async def test_what_is_open_at_the_end_is_charged_once_where_the_task_counts(
        self, journal, made, claimed, counters
    ):
        root = asking(made, 1_000)
        claim = await claimed(root)
        child = made.child(root)
        working = await claimed(child)
        await journal.spend(working, "r", [opened(600)], "", is_progress=False)
        await journal.finish(working, "FAILED", [made.result()])
        assert await counters() == await counters(child.name.task_id) == (600, 0, 600)
        await journal.spend(claim, "r", [opened(300)], "", is_progress=False)
        await journal.finish(claim, "FAILED", [made.result()])
        assert await counters() == (900, 0, 900)

    async def test_a_raise_counts_from_the_decision_on(self, journal, made, claimed):
        claim = await claimed(asking(made, 1_000))
        await journal.append(claim, "q", [made.asks()])
        decided = StepEvent()
        decided.input_resolved.input_id = "in-1"
        decided.input_resolved.cost_budget_micros = 2_000
        assert isinstance(await journal.spend(claim, "r", [opened(1_500)], "", is_progress=False), Short)
        await journal.resolve(made.name(), "in-1", "", decided)
        assert not isinstance(await journal.spend(claim, "r", [opened(1_500)], "", is_progress=False), Short)

    @pytest.mark.parametrize("seed", range(5))
    async def test_fifty_at_once_with_losses_never_exceed_it(self, journal, made, claimed, counters, seed):
        dice = random.Random(seed)
        root = asking(made, BUDGET)
        await claimed(root)
        children = [made.child(root, f"c{n}") for n in range(CHILDREN)]
        spent = 0

        async def work(child):
            nonlocal spent
            claim, held = await claimed(child), 0
            for number in range(40):
                if held:  # the worker before was lost in its call
                    await journal.append(claim, f"lost{number}", [charged(held)], is_progress=False)
                    spent += held
                held = dice.randint(1, 500)
                reply = await journal.spend(claim, f"r{number}", [opened(held)], "", is_progress=False)
                if isinstance(reply, Short):
                    assert (reply.left or 0) < held
                    held = 0
                    break
                if dice.random() < 0.7:
                    cost = dice.randint(0, held)
                    await journal.append(claim, f"a{number}", [answered(cost, held)])
                    spent += cost
                    held = 0
            await journal.finish(claim, "COMPLETED", [made.result()])
            spent += held

        async def watch():
            while True:
                cost, reserved, _ = await counters()
                assert cost + reserved <= BUDGET
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(work, children))
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        assert (await counters())[:2] == (spent, 0)
        assert BUDGET - 500 <= spent <= BUDGET


HELPER = '''
"""An agent whose model takes its time."""

from meshwright.agents import Agent

agent = Agent("helper", "Help.", tools=[])
'''


class Helpers:
    """Processes of one agent that die and come back."""

    def __init__(self, mesh, folder, prices):
        self._file = folder / "helper.py"
        self._file.write_text(HELPER)
        script = folder / "slow.yaml"
        usage = {"input_tokens": 20, "output_tokens": 10}
        again = {"tool_calls": [{"name": "nothing"}], "usage": usage, "latency_ms": 500}
        script.write_text(
            json.dumps({"agents": {"helper": [again, again, {"text": "Helped.", **again, "tool_calls": []}]}})
        )
        settings = {
            "STORE_URL": mesh.url,
            "REGISTRY": mesh.target,
            "LEASE_S": "1",
            "MODEL": f"scripted:{script}",
            "PRICES": prices,
            "CONCURRENCY": str(CHILDREN),
            "DRAIN_S": "0",
            "LOG_LEVEL": "error",
            "TRACING": "false",
        }
        self._environment = os.environ | {f"MESHWRIGHT_{name}": value for name, value in settings.items()}
        self._processes = []
        self.kills = 0

    async def start(self):
        """Starts a process and waits until it works."""
        command = (sys.executable, "-m", "meshwright.agents", f"{self._file}:agent")
        out = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=self._environment, stdout=out)
        self._processes.append(process)  # before anything can break this off: it has to be ended
        assert json.loads(await process.stdout.readline())["target"]

    async def kill(self, number):
        process = self._processes.pop(number)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def strike(self, counters):
        """Kills a process whenever many model calls are under way, and starts a new one, until it is cancelled."""
        while True:
            if (await counters())[1] > BUDGET // 10:
                await self.kill(0)
                self.kills += 1
                await self.start()
            await asyncio.sleep(0.01)

    async def close(self):
        while self._processes:
            await self.kill(0)


@pytest.fixture
async def helpers(mesh, tmp_path):
    prices = tmp_path / "prices.yaml"
    one = {"input": 1_000_000, "output": 1_000_000}
    prices.write_text(json.dumps(dict.fromkeys(("slow.yaml", "boss.yaml", "middle.yaml"), one)))
    started = Helpers(mesh, tmp_path, str(prices))
    await asyncio.gather(started.start(), started.start())
    yield started
    await started.close()


def delegating(*agents):
    calls = [{"name": f"ask.{agent}", "arguments": {"prompt": "Help."}} for agent in agents]
    return {"tool_calls": calls, "usage": {"input_tokens": 20, "output_tokens": 10}}


async def test_fifty_children_whose_workers_are_killed_never_exceed_the_budget_above(
    mesh, dial, helpers, counters, tmp_path
):
    done = {"text": "Done.", "usage": {"input_tokens": 20, "output_tokens": 10}}
    chosen = {"prices": str(tmp_path / "prices.yaml"), "lease_s": 1}
    half = json.dumps({"agents": {"middle": [delegating(*["helper"] * (CHILDREN // 2)), done]}})
    await mesh.agent(
        Agent("middle", "Half of it.", delegates=["helper"], max_children_at_once=CHILDREN // 2), script=half, **chosen
    )
    all_of_it = json.dumps(
        {"agents": {"boss": [done | {"tool_calls": [{"name": "no"}]}, delegating("middle", "middle"), done]}}
    )
    boss = dial(await mesh.agent(Agent("boss", "All of it.", delegates=["middle"]), script=all_of_it, **chosen))
    await boss.submit(task_id="t1", cost_budget_micros=BUDGET, max_steps=1, on_budget_exceeded=BUDGET_ACTION_ASK)
    (pending,) = await boss.asked("t1")
    await boss.resolve("t1", pending, DECISION_RAISE_BUDGET, max_steps=10, token_budget=200_000)
    striking = asyncio.create_task(helpers.strike(counters))
    response = await boss.ended("t1")
    striking.cancel()
    await asyncio.gather(striking, return_exceptions=True)
    events = await boss.watch("t1")
    asked = sum(event.child.event.HasField("delegation") for event in events)
    assert (response.status, asked) == (TASK_STATUS_COMPLETED, CHILDREN)
    assert helpers.kills > 0
    assert 0 < response.usage.estimated_cost_micros < response.usage.cost_micros <= BUDGET
    assert sum(row.usage.cost_micros for row in response.usage_shares) == response.usage.cost_micros
