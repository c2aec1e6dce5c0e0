"""A hundred watchers of one task: what a delivery costs the process that serves them."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from benchmarks.findings import Finding
from benchmarks.follower import LAST
from benchmarks.parts import BenchmarkError, Mesh, Part, Scene
from benchmarks.rounds import Effort
from meshwright.agents.journal import Claim
from meshwright.agents.task import NewTask, TaskName
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub

MANY = 100
HOUR_MS = 3_600_000
PACE_S = 0.004
NUMBERS = itertools.count()


async def claimed(mesh: Mesh, task_id: str) -> Claim:
    """Makes a task that is written from here."""
    request = TaskRequest(prompt="Watch.", max_steps=10, token_budget=8192)
    name = TaskName("default", "default", task_id)
    agent_id = f"nobody-{task_id}"  # a queue of its own: a claim at once is had only where nobody waits
    task = NewTask(name, agent_id, task_id, request, HOUR_MS, root_id=task_id)
    accepted = await mesh.journal.accept(task, claim=True)
    if accepted.claim is None:
        raise BenchmarkError(f"{task_id} is not new")
    return accepted.claim


async def write(mesh: Mesh, claim: Claim, many: int, *, pace_s: float = PACE_S) -> None:
    """Writes events one by one; the last one says that it is."""
    for number in range(many):
        notice = RunnerNotice(detail=LAST if number == many - 1 else "An event like others, of ordinary length.")
        await mesh.journal.append(claim, f"event:{number}", [StepEvent(step=1, notice=notice)])
        await asyncio.sleep(pace_s)


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures deliveries by the shared feed, by connections of their own, and through the agent's server."""
    stage, mesh, agent = scene.stage, scene.mesh, scene.agent
    events = 25 * effort.scale

    url = mesh.settings.store_url
    parts = {
        kind: await stage.python(kind, "-m", "benchmarks.follower", kind, url, str(MANY), settings=mesh.settings)
        for kind in ("feed", "alone")
    }

    def followed(part: Part) -> Callable[[], Awaitable[float]]:
        return lambda: by_process(mesh, part, events)

    sides = {kind: followed(part) for kind, part in parts.items()}
    if effort.is_full:
        sides["server"] = lambda: through_server(mesh, agent, events)
    found = await effort.interleaved(sides)
    for part in parts.values():
        await part.stop()
    return findings(found)


def findings(found: dict[str, list[float]]) -> list[Finding]:
    """Sums rounds up."""
    pace = f"{MANY} watchers of one task, an event every {PACE_S * 1000:.0f} ms or less often"
    return [
        Finding("watchers", f"{pace}, by the shared feed", "µs CPU a delivery", found["feed"], goal=15.0),
        Finding(
            name="watchers_shared",
            what=f"{pace}: shared feed against a blocking XREAD each",
            unit="µs CPU a delivery",
            ours=found["feed"],
            theirs=found["alone"],
            unequal="both parse events; the feed also fills holes and sends heartbeats; an XREAD may take several",
        ),
        *(
            Finding("watchers_grpc", f"{pace}, gRPC's writes included", "µs CPU a delivery", costs)
            for kind, costs in found.items()
            if kind == "server"
        ),
    ]


async def by_process(mesh: Mesh, part: Part, events: int) -> float:
    """Lets a process follow one task many times; returns its µs of CPU a delivery."""
    claim = await claimed(mesh, f"watched-{next(NUMBERS)}")
    part.tell(claim.name.task_id)
    await part.told()
    before = part.cpu_s()
    await write(mesh, claim, events)
    told = await part.told()
    cost = part.cpu_s() - before
    if told != {"delivered": MANY * events}:
        raise BenchmarkError(f"{part.name}: {told} of {MANY * events} deliveries")
    return cost / (MANY * events) * 1e6


async def through_server(mesh: Mesh, agent: Part, events: int) -> float:
    """Watches one task by many calls of WatchTask; returns the server's µs of CPU a delivery."""
    claim = await claimed(mesh, f"watched-{next(NUMBERS)}")
    request = WatchTaskRequest(task_id=claim.name.task_id)
    async with grpc.aio.insecure_channel(agent.target) as one, grpc.aio.insecure_channel(agent.target) as other:
        stubs = (TaskServiceStub(one), TaskServiceStub(other))

        async def watch(stub: Any) -> int:
            seen = 0
            async for event in stub.WatchTask(request):
                seen += bool(event.sequence)
                if event.notice.detail == LAST:
                    break
            return seen

        watching = [asyncio.create_task(watch(stubs[number % 2])) for number in range(MANY)]
        await asyncio.sleep(0.5)
        before = agent.cpu_s()
        await write(mesh, claim, events)
        delivered = sum(await asyncio.gather(*watching))
        cost = agent.cpu_s() - before
    if delivered != MANY * events:
        raise BenchmarkError(f"{delivered} of {MANY * events} deliveries")
    return cost / delivered * 1e6
