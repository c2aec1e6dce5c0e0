"""Restarts: everything of which there are two is restarted in turn, and no keyed call fails."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.rolling import rolled, serves
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.chaos.tally import Tally, some, takeovers
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest

CLIENTS = 3
PACE_S = 0.2


@dataclass(slots=True)
class Calls:
    """Keyed calls of clients that leave repetition to their channel.

    Attributes:
        made: How many.
        failed: How some of them failed.
    """

    made: int = 0
    failed: list[str] = field(default_factory=list)

    async def make(self, call: Awaitable[object]) -> None:
        """Makes one call."""
        self.made += 1
        try:
            await call
        except MeshError as error:
            self.failed.append(f"{error.code.name} {error.message}")


async def play(setting: Setting) -> Row:
    """Restarts each process of the agent, the registry and the gateway while clients call without a pause.

    Where the edge wants a key, its one gateway says who is calling: without it nobody is let in, so that one stays.
    """
    rounds, calls, is_over = setting.size(1, 10), Calls(), asyncio.Event()
    async with Rig(setting, disguise=serves) as rig:
        clients = [asyncio.create_task(client(rig, f"r{number}", calls, is_over)) for number in range(CLIENTS)]
        names = ("registry",) if rig.key else ("registry", "gateway")
        services = [rig.mesh.children[name] for name in names]
        is_whole = await rolled(rig, [*rig.processes("courier"), *services] * rounds)
        is_over.set()
        await asyncio.gather(*clients)
    row = Row(f"{len(rig.stops)} restarts under load")
    taken = sum(len(list(takeovers(told))) for told in rig.told)
    row.figures = {"keyed calls": str(calls.made), "failed": str(len(calls.failed)), "takeovers": str(taken)}
    row.check(is_whole, "a process did not come back")
    row.check(not calls.failed, f"keyed calls failed: {some(calls.failed)}")
    row.check(not taken, f"{taken} tasks were taken over instead of handed back")
    Tally.of(rig).report(row, 0, rig.bound_s)
    return row


async def client(rig: Rig, name: str, calls: Calls, is_over: asyncio.Event) -> None:
    """Submits tasks, asks for each while it runs, and watches it to its end."""
    number = 0
    while not is_over.is_set():
        job = rig.job(f"{name}-{number}", ("look", "send", "mark"), PACE_S)
        await calls.make(rig.edge.call(rig.edge.tasks.SubmitTask, rig.request(job, "courier")))
        playing = asyncio.create_task(rig.play(job, "courier"))
        while not playing.done():
            await calls.make(rig.edge.call(rig.edge.tasks.GetTask, GetTaskRequest(task_id=job.name)))
            await asyncio.wait([playing], timeout=PACE_S)
        number += 1
