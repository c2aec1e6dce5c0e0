"""Fairness: one tenant has thousands of tasks in the queue, and another one hardly notices."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from meshwright.agents.journal import LIBRARY, Journal, Limits
from meshwright.agents.task import NewTask, TaskName
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.child import Child
from meshwright.core.store import Store
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

AGENT = "courier"
GREEDY, MODEST = "greedy", "modest"
CONCURRENCY = 4
SERVICE_S = 0.08
BATCH = 40
TIMEOUT_S = 600
AT_ONCE = 64
LOOK_S = 0.05
NO_LIMIT = 10**6
PATIENCE_S = 15.0
MOST_SLOWDOWN = 2.0
TRIES = 3
RATIO = 2.0
"""Two tenants share one agent: each gets half of it, so a batch takes twice as long as alone."""


def narrow(child: Child) -> None:
    """Sets how many tasks an agent's process runs at once."""
    if "meshwright.agents" in child.command:
        child.environment["MESHWRIGHT_CONCURRENCY"] = str(CONCURRENCY)


class Queue:
    """The queue of the agent, filled past the edge, in the name of any tenant.

    Args:
        rig: Whose store it is in.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._store = Store(str(rig.mesh.facts()["store"]), LIBRARY)
        self.journal = Journal(self._store, "chaos", limits=Limits(NO_LIMIT, NO_LIMIT))

    async def open(self) -> None:
        """Connects."""
        await self._store.open()

    async def close(self) -> None:
        """Disconnects."""
        await self._store.close()

    def task(self, tenant: str, name: str) -> NewTask:
        """Makes a task that takes one model call."""
        prompt = self._rig.job(f"{tenant}-{name}", (), SERVICE_S).prompt
        timeout = Duration(seconds=TIMEOUT_S)
        request = TaskRequest(agent_id=AGENT, prompt=prompt, max_steps=5, token_budget=8_192, timeout=timeout)
        name_ = TaskName(tenant, tenant, f"{tenant}-{name}")
        return NewTask(name_, AGENT, f"hash {name_.task_id}", request, TIMEOUT_S * 1000, root_id=name_.task_id)

    async def fill(self, tenant: str, names: Sequence[str]) -> list[TaskName]:
        """Puts tasks into the queue."""
        tasks = [self.task(tenant, name) for name in names]
        for start in range(0, len(tasks), AT_ONCE):
            await asyncio.gather(*(self.journal.accept(task, claim=False) for task in tasks[start : start + AT_ONCE]))
        return [task.name for task in tasks]

    async def measured(self, names: Sequence[str]) -> "Waits":
        """Queues a batch of the modest tenant and waits until all of it has started."""
        before, began = await self.journal.ready(AGENT), time.monotonic()
        left = await self.fill(MODEST, names)
        waits: list[float] = []
        while left and time.monotonic() < began + PATIENCE_S:
            records = [await self.journal.record(name) for name in left]
            waits += [(record.started - record.created) / 1000 for record in records if record.started]
            left = [record.name for record in records if not record.started]
            await asyncio.sleep(LOOK_S)
        started = before + len(names) - await self.journal.ready(AGENT)
        waits += [float("inf")] * len(left)
        return Waits(p95(waits), started / (time.monotonic() - began))


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a batch waited, and how many tasks of any tenant the agent began a second meanwhile."""

    p95: float
    rate: float


def p95(waits: Sequence[float]) -> float:
    """The wait that one in twenty exceeds."""
    return statistics.quantiles(waits, n=20, method="inclusive")[-1] if max(waits) < float("inf") else float("inf")


def allowed(alone: Waits, beside: Waits) -> float:
    """Returns how long one in twenty may wait beside another tenant that always has work.

    Nobody is interrupted, and alone the first ones wait for nobody, who now wait for a place: with a fair share of the
    places, the last of a batch waits twice as long as alone and those two rounds, after the round that runs already.
    The agent may be slower, since the machine has more to do; up to a point, the other queue is no reason for it.
    """
    pace = min(MOST_SLOWDOWN, max(1.0, alone.rate / max(beside.rate, 0.01)))
    return RATIO * alone.p95 * pace + 3 * CONCURRENCY / alone.rate


async def shortest(queue: Queue, alone: Waits) -> tuple[Waits, float]:
    """Measures waits beside the other tenant, again where they are too long: an unfair queue is so every time."""
    beside, bound = Waits(float("inf"), 1.0), 0.0
    for attempt in range(TRIES):
        beside = await queue.measured([f"{attempt}-{number}" for number in range(BATCH)])
        bound = allowed(alone, beside)
        if beside.p95 <= bound:
            break
    return beside, bound


async def play(setting: Setting) -> Row:
    """Measures a tenant's waits alone, then beside one that has filled the queue."""
    flood = setting.size(500, 10_000)
    row = Row(f"{flood} tasks of one tenant queued, {BATCH} of another")
    async with Rig(setting, agents=(AGENT,), workers=0, disguise=narrow) as rig:
        queue = Queue(rig)
        await queue.open()
        try:
            names = [str(number) for number in range(BATCH)]
            await queue.measured([f"warm-{name}" for name in names[:CONCURRENCY]])
            alone = await queue.measured([f"alone-{name}" for name in names])
            setting.tell(f"p95 wait alone {alone.p95:.2f} s; filling the queue")
            await queue.fill(GREEDY, [str(number) for number in range(flood)])
            beside, bound = await shortest(queue, alone)
            still = await queue.journal.ready(AGENT)
        finally:
            await queue.close()
    row.figures = {
        "p95 alone": f"{alone.p95:.2f} s",
        "p95 beside": f"{beside.p95:.2f} s",
        "tasks/s alone, beside": f"{alone.rate:.0f}, {beside.rate:.0f}",
        "still queued": str(still),
    }
    row.check(beside.p95 <= bound, f"p95 wait beside the other tenant was {beside.p95:.2f} s, more than {bound:.2f} s")
    row.check(still > 0, "the other tenant's queue was empty before it was over: nothing was shown")
    return row
