"""Streams that are cut: clients lose theirs at random places and go on after the last number they have."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from meshwright.cli.chaos.job import Word
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.edge import Edge
from meshwright.cli.mesh import HOST
from meshwright.core import channel
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest, WatchTaskRequest

PARENT = "trader"
LOOKS: tuple[Word, ...] = ("look",) * 8
PACE_S = 0.03
MOST_AT_ONCE = 6
"""Events that a client reads before it is cut off, at the most."""
PATIENCE_S = 60.0
TASKS_EACH = 5
"""Clients a task."""


@dataclass(slots=True)
class Client:
    """One watcher of one task.

    Attributes:
        task: Its id.
        speaks: `grpc` or `sse`.
        drops: How often it was cut off.
        late: Of them, how often after the task had ended.
        seen: Every numbered event, as it came.
    """

    task: str
    speaks: str
    drops: int = 0
    late: int = 0
    seen: list[StepEvent] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The number after which it resumes."""
        return self.seen[-1].sequence if self.seen else 0

    @property
    def has_ended(self) -> bool:
        """Whether it has seen the result."""
        return bool(self.seen) and self.seen[-1].HasField("result")


async def by_grpc(rig: Rig, task: str, after: int) -> AsyncIterator[StepEvent]:
    """Watches on a connection of its own."""
    edge = Edge(rig.mesh.edge_url, rig.key)
    try:
        watch = edge.tasks.WatchTask
        async with contextlib.aclosing(
            channel.stream(watch, WatchTaskRequest(task_id=task, after_sequence=after), timeout_s=None)
        ) as events:
            async for event in events:
                yield event
    finally:
        await edge.close()


async def by_sse(rig: Rig, task: str, after: int) -> AsyncIterator[StepEvent]:
    """Watches as a browser does: Server-Sent Events, resumed by their last id."""
    reader, writer = await asyncio.open_connection(HOST, rig.mesh.plan.port)
    try:
        head = (
            f"GET /v1/tasks/{task}/events HTTP/1.1",
            f"host: {HOST}:{rig.mesh.plan.port}",
            "accept: text/event-stream",
            *([f"last-event-id: {after}"] if after else []),
            *([f"x-api-key: {rig.key}"] if rig.key else []),
        )
        writer.write("\r\n".join((*head, "", "")).encode())
        while line := await reader.readline():
            if line.startswith(b"data: "):
                yield json_format.ParseDict(json.loads(line[6:]), StepEvent())
            if line.rstrip() == b"0":  # the last chunk
                return
    finally:
        writer.transport.abort()


WAYS: dict[str, Any] = {"grpc": by_grpc, "sse": by_sse}


async def watch(rig: Rig, client: Client, draw: random.Random) -> None:
    """Watches to the end, and is cut off again and again on the way."""
    while not client.has_ended:
        left = draw.randint(0, MOST_AT_ONCE)
        with contextlib.suppress(MeshError, OSError):
            async with contextlib.aclosing(WAYS[client.speaks](rig, client.task, client.last)) as events:
                async for event in events:
                    if not event.sequence:
                        continue
                    client.seen.append(event)
                    left -= 1
                    if left < 0:
                        break
        client.drops += not client.has_ended


async def watch_again(rig: Rig, client: Client, draw: random.Random) -> list[StepEvent]:
    """Resumes a stream that has ended, from a random place, and returns what comes."""
    after = draw.randrange(client.last)
    client.late += 1
    again = []
    async with contextlib.aclosing(WAYS[client.speaks](rig, client.task, after)) as events:
        async for event in events:
            again.append(event)
            if event.HasField("result"):
                break
    return [*client.seen[:after], *again]


def numbers(events: list[StepEvent]) -> list[int]:
    """Returns the sequences."""
    return [event.sequence for event in events]


def children(events: list[StepEvent]) -> list[int]:
    """Returns the sequences of the child's own stream, as they came through the parent's."""
    return [event.child.event.sequence for event in events if event.HasField("child")]


def cut_off(clients: list[Client]) -> int:
    """Counts how often clients were cut off before they had seen the result."""
    return sum(client.drops for client in clients)


def complaints(clients: list[Client], ends: dict[str, TaskResponse]) -> Iterator[str]:
    """Names the streams that were not exactly 1, 2, 3 … to the end, the child's too, and the same for everybody."""
    first = {client.task: client for client in reversed(clients)}
    for client in clients:
        who = f"{client.task} by {client.speaks}"
        if numbers(client.seen) != list(range(1, ends[client.task].last_sequence + 1)):
            yield who
        inner = children(client.seen)
        if not inner or inner != list(range(1, len(inner) + 1)):
            yield f"the child of {who}"
        if client.seen != first[client.task].seen:
            yield f"{who}: others saw other events"


async def play(setting: Setting) -> Row:
    """Cuts streams of tasks that delegate, while they run and after their end."""
    many, drops = setting.size(8, 50), setting.size(60, 500)
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    tasks = [f"task-{number}" for number in range(-(-many // TASKS_EACH))]
    clients = [Client(tasks[number % len(tasks)], ("grpc", "sse")[number % 2]) for number in range(many)]
    torn: set[str] = set()
    async with Rig(setting, agents=(PARENT, "helper"), workers=0) as rig, asyncio.timeout(PATIENCE_S):
        for task in tasks:
            job = rig.job(task, ("ask", *LOOKS), PACE_S, LOOKS)
            request = TaskRequest(task_id=task, agent_id=PARENT, prompt=job.prompt, max_steps=25)
            await rig.edge.call(rig.edge.tasks.SubmitTask, request)
        await asyncio.gather(*(watch(rig, client, draw) for client in clients))
        ends: dict[str, TaskResponse] = {
            task: await rig.edge.call(rig.edge.tasks.GetTask, GetTaskRequest(task_id=task)) for task in tasks
        }
        while not (late := sum(client.late for client in clients)) or late + cut_off(clients) < drops:
            for client in clients:
                if await watch_again(rig, client, draw) != client.seen:
                    torn.add(f"{client.task} by {client.speaks}, again after its end")
    torn |= set(complaints(clients, ends))
    row = Row(f"{many} clients of {len(tasks)} tasks, {cut_off(clients) + late} drops")
    events = sum(len(client.seen) for client in clients)
    row.figures = {"drops while running": str(cut_off(clients)), "after the end": str(late), "events": str(events)}
    row.check(not torn, f"streams with gaps, repetitions or other events: {', '.join(sorted(torn)[:3])}")
    return row
