"""The backlog: tasks that wait for an agent's workers and for how long, and all that are open, as metrics tell it."""

import time

from meshwright.agents.journal import Journal
from meshwright.core import telemetry
from meshwright.core.store import partition_key

EVERY_S = 5.0


class Backlog:
    """Measures the mesh, and the queues of one agent: that of any version and that of tasks of this process's version.

    Args:
        journal: Where tasks live.
        agent_id: Whose queues.
        version: Of this process.
    """

    def __init__(self, journal: Journal, agent_id: str, version: str) -> None:
        self._journal = journal
        self._agent_id = agent_id
        self._queues = {"": agent_id, version: f"{agent_id}@{version}"}
        self._next = 0.0

    async def measure(self) -> None:
        """Looks at the queues, at most every five seconds; a queue in which nothing waits takes one round trip.

        Raises:
            MeshError: The store did not answer.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        for version, queue in self._queues.items():
            many, waited_s = await self._looked_at(queue)
            telemetry.TASKS_READY.labels(self._agent_id, version).set(many)
            telemetry.READY_SECONDS.labels(self._agent_id, version).set(waited_s)
        await self._measure_mesh()

    async def _measure_mesh(self) -> None:
        store = self._journal.store
        numbers = range(store.partitions)
        keys = [partition_key(number, "deadlines") for number in numbers]  # a member for each task that has not ended
        keys += [partition_key(number, "leases") for number in numbers]  # for each that a worker holds
        keys += [partition_key(number, "lapses") for number in numbers]  # for each open question
        counted = await store.run(*(("ZCARD", key) for key in keys))
        unended, leased, asked = (sum(counted[at : at + len(numbers)]) for at in range(0, len(keys), len(numbers)))
        telemetry.TASKS_OPEN.labels("running").set(leased)
        telemetry.TASKS_OPEN.labels("waiting").set(max(0, unended - leased))  # they are not counted at one moment
        telemetry.QUESTIONS_OPEN.set(asked)

    async def _looked_at(self, queue: str) -> tuple[int, float]:
        """Returns how many tasks wait in a queue, and the seconds that the first in line has waited for."""
        store = self._journal.store
        numbers = range(store.partitions)
        keys = [partition_key(number, "ready", queue) for number in numbers]
        keys += [partition_key(number, "suspects", queue) for number in numbers]
        many = sum(await store.run(*(("ZCARD", key) for key in keys)))
        if not many:
            return 0, 0.0
        heads = await store.run(*(("ZRANGE", key, 0, 0) for key in keys))
        firsts = [
            partition_key(number, "task", head[0].decode())
            for number, head in zip([*numbers, *numbers], heads, strict=True)
            if head
        ]
        (seconds, micros), *queued = await store.run(("TIME",), *(("HGET", key, "queued") for key in firsts))
        now_s = int(seconds) + int(micros) / 1e6
        return many, max((now_s - int(since) / 1000 for since in queued if since), default=0.0)
