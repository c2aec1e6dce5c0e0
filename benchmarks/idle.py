"""Idle streams: what a watcher to whom nothing happens holds of the server's memory."""

import asyncio
import contextlib

import grpc

from benchmarks.findings import Finding, slope
from benchmarks.parts import Mesh, Part, Scene
from benchmarks.rounds import Effort
from benchmarks.watchers import claimed
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub

A_CONNECTION = 90
"""Streams on one connection: the server lets it have a hundred, and the store's client opens so many connections."""
SETTLE_S = 0.3
FULL_ROUNDS = 3
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Else channels of one process to one server share a connection."""


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Opens streams in blocks, each of a task of its own, and fits a line through the server's memory."""
    stage, mesh = scene.stage, scene.mesh
    blocks = 15 if effort.is_full else 5
    slopes = []
    for turn in range(FULL_ROUNDS if effort.is_full else 1):
        agent = await stage.agent(f"idle-{turn}", mesh, role="server")
        slopes.append(await measured(mesh, agent, blocks, turn))
        await agent.stop()
    what = f"memory of an idle WatchTask stream, {blocks * A_CONNECTION} of them, connections included"
    return [Finding("idle_stream", what, "KiB a stream", slopes, goal=25.0, is_gated=True)]


async def measured(mesh: Mesh, agent: Part, blocks: int, turn: int) -> float:
    """Returns the server's KiB a stream."""
    points: list[tuple[float, float]] = []
    async with contextlib.AsyncExitStack() as stack:
        for block in range(blocks):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(agent.target, options=OPTIONS))
            stub = TaskServiceStub(channel)
            tasks = [f"idle-{turn}-{block}-{number}" for number in range(A_CONNECTION)]
            await asyncio.gather(*(claimed(mesh, task_id) for task_id in tasks))
            for task_id in tasks:
                call = stub.WatchTask(WatchTaskRequest(task_id=task_id))
                stack.callback(call.cancel)
                await call.initial_metadata()
            await asyncio.sleep(SETTLE_S)
            points.append(((block + 1) * A_CONNECTION, agent.resident_bytes() / 1024))
    return slope(points[1:])  # the first block pays for what all of them share
