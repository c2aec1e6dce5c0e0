"""Fairness: one tenant has thousands of tasks in the queue, and another one hardly notices."""

import asyncio
import statistics
from collections.abc import Sequence

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
SERVICE_S = 0.1
BATCH = 24
TIMEOUT_S = 600
AT_ONCE = 64
LOOK_S = 0.05
NO_LIMIT = 10**6
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

    async def waits(self, names: Sequence[TaskName], patience_s: float) -> list[float]:
        """Waits for tasks to start; returns how many seconds each of them waited, endless where it did not start."""
        waits = dict.fromkeys(names, float("inf"))
        left = set(names)
        for _ in range(int(patience_s / LOOK_S)):
            for name in list(left):
                record = await self.journal.record(name)
                if record.started:
                    waits[name] = (record.started - record.created) / 1000
                    left.discard(name)
            if not left:
                break
            await asyncio.sleep(LOOK_S)
        return list(waits.values())


def p95(waits: Sequence[float]) -> float:
    """The wait that one in twenty exceeds."""
    return statistics.quantiles(waits, n=20, method="inclusive")[-1] if max(waits) < float("inf") else float("inf")


async def play(setting: Setting) -> Row:
    """Measures a tenant's waits alone, then beside one that has filled the queue."""
    flood = setting.size(500, 10_000)
    row = Row(f"{flood} tasks of one tenant queued, {BATCH} of another")
    async with Rig(setting, agents=(AGENT,), workers=0, disguise=narrow) as rig:
        queue = Queue(rig)
        await queue.open()
        try:
            names = [str(number) for number in range(BATCH)]
            await queue.waits(await queue.fill(MODEST, [f"warm-{name}" for name in names[:CONCURRENCY]]), 10)
            alone = p95(await queue.waits(await queue.fill(MODEST, [f"alone-{name}" for name in names]), 30))
            setting.tell(f"p95 wait alone {alone:.2f} s; filling the queue")
            await queue.fill(GREEDY, [str(number) for number in range(flood)])
            beside = p95(await queue.waits(await queue.fill(MODEST, names), max(5.0, 5 * alone)))
            still = await queue.journal.ready(AGENT)
        finally:
            await queue.close()
    bound = RATIO * alone + SERVICE_S  # a task that runs is not interrupted for another tenant's
    row.figures = {"p95 alone": f"{alone:.2f} s", "p95 beside": f"{beside:.2f} s", "still queued": str(still)}
    row.check(beside <= bound, f"p95 wait beside the other tenant was {beside:.2f} s, more than {bound:.2f} s")
    row.check(still > 0, "the other tenant's queue was empty before it was over: nothing was shown")
    return row
