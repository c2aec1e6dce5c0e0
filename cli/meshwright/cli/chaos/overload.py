"""Overload: four times what the mesh can do is offered; the excess is refused, what was accepted ends."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import accumulate

import grpc

from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.child import Child
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest

AGENT = "courier"
CONCURRENCY = 2
SERVICE_S = 0.1
MAX_READY = 20
TIMES = 4
PATIENCE_S = 20.0
RECOVERY_S = 5.0
LOOK_S = 0.1
PROBE_S = 3.0


@dataclass(slots=True)
class Offered:
    """What became of the tasks that were offered."""

    accepted: list[str] = field(default_factory=list)
    refused: list[MeshError] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)
    lives: list[tuple[int, int]] = field(default_factory=list)
    """From when to when tasks were open, in nanoseconds of the store's clock."""

    @property
    def most_open(self) -> int:
        """How many tasks were open at once at the most; one that ends makes room for one that begins."""
        moments = sorted([(begun, 1) for begun, _ in self.lives] + [(ended, -1) for _, ended in self.lives])
        return max(accumulate((change for _, change in moments), initial=0))


def narrow(child: Child) -> None:
    """Makes an agent small: few places, a short queue."""
    if "meshwright.agents" in child.command:
        child.environment["MESHWRIGHT_CONCURRENCY"] = str(CONCURRENCY)
        child.environment["MESHWRIGHT_MAX_READY"] = str(MAX_READY)


def request(rig: Rig, name: str) -> TaskRequest:
    """Asks for a task of one model call."""
    return TaskRequest(task_id=name, agent_id=AGENT, prompt=rig.job(name, (), SERVICE_S).prompt)


async def capacity(rig: Rig, seconds: float) -> float:
    """Measures how many tasks a second are done where every place is always taken."""
    ends, done = time.monotonic() + seconds, 0

    async def busy(place: int) -> int:
        count = 0
        while time.monotonic() < ends:
            task = request(rig, f"measured-{place}-{count}")
            await rig.edge.agents.RunTask(task, timeout=PATIENCE_S, metadata=[("x-agent-id", AGENT)])
            count += 1
        return count

    started = time.monotonic()
    done = sum(await asyncio.gather(*(busy(place) for place in range(CONCURRENCY))))
    return done / (time.monotonic() - started)


async def offer(rig: Rig, rate: float, seconds: float) -> Offered:
    """Submits tasks at a rate, whatever becomes of them."""
    offered = Offered()

    async def one(name: str) -> None:
        try:
            await rig.edge.call(rig.edge.tasks.SubmitTask, request(rig, name))
        except MeshError as error:
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                offered.refused.append(error)
            else:
                offered.failed.append(f"{error.reason}: {error.message}")
        else:
            offered.accepted.append(name)

    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            group.create_task(one(f"offered-{number}"))
    return offered


async def recovery(rig: Rig) -> float:
    """Returns after how many seconds a new task is accepted, and done as soon as the queue before it is."""
    started, number = time.monotonic(), 0
    while time.monotonic() < started + PATIENCE_S:
        number += 1
        task = request(rig, f"after-{number}")
        try:
            await rig.edge.agents.RunTask(task, timeout=PROBE_S, metadata=[("x-agent-id", AGENT)])
        except grpc.aio.AioRpcError:
            await asyncio.sleep(LOOK_S)
        else:
            return time.monotonic() - started
    return float("inf")


async def follow(rig: Rig, offered: Offered) -> None:
    """Waits until all accepted tasks have ended."""
    ends = time.monotonic() + PATIENCE_S
    left = set(offered.accepted)
    while left and time.monotonic() < ends:
        for name in list(left):
            task: TaskResponse = await rig.edge.call(rig.edge.tasks.GetTask, GetTaskRequest(task_id=name))
            if task.HasField("end_time"):
                left.discard(name)
                offered.lives.append((task.create_time.ToNanoseconds(), task.end_time.ToNanoseconds()))
            if task.status == TASK_STATUS_COMPLETED:
                offered.completed.add(name)
        await asyncio.sleep(LOOK_S)


async def play(setting: Setting) -> Row:
    """Measures the capacity, offers four times as much, and looks how the mesh comes out of it."""
    seconds = setting.size(3, 30)
    async with Rig(setting, agents=(AGENT,), workers=0, disguise=narrow) as rig:
        measured = await capacity(rig, setting.size(1, 3))
        setting.tell(f"capacity {measured:.0f} tasks/s; offering {TIMES} times as much")
        offered = await offer(rig, TIMES * measured, seconds)
        recovered_s = await recovery(rig)
        await follow(rig, offered)
    total = len(offered.accepted) + len(offered.refused) + len(offered.failed)
    lost = len(offered.accepted) - len(offered.completed)
    row = Row(f"{total} tasks in {seconds} s, {TIMES} times the capacity of {measured:.0f}/s")
    row.figures = {
        "accepted": str(len(offered.accepted)),
        "open at once": str(offered.most_open),
        "refused": str(len(offered.refused)),
        "lost": str(lost),
        "recovered after": f"{recovered_s:.1f} s",
    }
    row.check(offered.most_open <= MAX_READY + CONCURRENCY, f"{offered.most_open} tasks were open: no bound holds")
    row.check(bool(offered.refused), "nothing was refused")
    silent = sum(1 for error in offered.refused if not error.retry_after_s)
    row.check(not silent, f"{silent} refusals do not say when to try again")
    row.check(not offered.failed, f"{len(offered.failed)} calls failed otherwise: {offered.failed[:1]}")
    row.check(not lost, f"{lost} accepted tasks did not complete")
    row.check(recovered_s <= RECOVERY_S, f"a new task was done only after {recovered_s:.1f} s")
    return row
