"""The edge: what it adds to a call, what Envoy's part of one costs, and what an open stream holds of memory."""

import asyncio
import contextlib
import resource
import socket
import statistics
from dataclasses import dataclass
from importlib.resources import files

import grpc

from benchmarks.findings import Finding
from benchmarks.load import closed_loop
from benchmarks.parts import PATIENCE_S, BenchmarkError, Mesh, Part, Scene, Stage
from benchmarks.rounds import Effort
from benchmarks.watchers import claimed
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.config import DESCRIPTORS
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint

AGENT = "bench"
METADATA = (("x-agent-id", AGENT),)
CALLS = 300
STREAMS = 1_000
AT_ONCE = 50
SETTLE_S = 1.0
FILES = 4_096
"""Open files that a thousand streams need, at the client and in Envoy."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the agent; a call tells its time and what Envoy did for it."""

    stub: AgentServiceStub
    edge: Part

    async def act(self) -> None:
        """Calls once."""
        answer = await self.stub.Health(HealthRequest(agent_id=AGENT), metadata=METADATA)
        if answer.agent_id != AGENT:
            raise BenchmarkError(f"the answer is for {answer.agent_id!r}")

    async def round(self, calls: int) -> tuple[float, float]:
        """Calls one after the other; returns the median in ms, and Envoy's CPU a call in µs."""
        before = self.edge.cpu_s()
        latencies = await closed_loop(self.act, calls, 1)
        return statistics.median(latencies) * 1e3, (self.edge.cpu_s() - before) / calls * 1e6


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures calls with and without the edge in turns, then a thousand streams."""
    stage = scene.stage
    agent = await stage.agent("edge-agent", scene.mesh, role="server")
    port, edge = await started(stage, scene.mesh, agent)
    calls = CALLS * effort.scale
    async with grpc.aio.insecure_channel(agent.target) as near, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as far:
        direct, through = Way(AgentServiceStub(near), edge), Way(AgentServiceStub(far), edge)
        found = await effort.interleaved({"direct": lambda: direct.round(calls), "edge": lambda: through.round(calls)})
    added = [mine - other for (mine, _), (other, _) in zip(found["edge"], found["direct"], strict=True)]
    direct_ms = statistics.median(median for median, _ in found["direct"])
    held = await streams(scene.mesh, port, (edge, agent))
    return [
        Finding(
            "edge_latency",
            "a gRPC call, one at a time: what the edge adds at the median",
            "ms",
            added,
            goal=1.0,
            beside={"direct": f"{direct_ms:.2f} ms"},
        ),
        Finding("edge_cpu", "Envoy's part of the same call", "µs CPU", [cpu for _, cpu in found["edge"]], goal=150.0),
        Finding(
            "edge_stream",
            f"memory of an idle stream of Server-Sent Events, {STREAMS} of them, each with a connection of its own",
            "KiB a stream, Envoy and agent together",
            [sum(held)],
            goal=60.0,
            beside={"Envoy": f"{held[0]:.1f} KiB", "agent": f"{held[1]:.1f} KiB"},
        ),
    ]


async def started(stage: Stage, mesh: Mesh, agent: Part) -> tuple[int, Part]:
    """Starts an Envoy in front of the agent, as the gateway renders it but without limits; returns its port."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    port, internal = free_port(), free_port()
    settings = GatewaySettings(
        edge_port=port, internal_port=internal, registry=mesh.registry.target, port=1, limit_address=0
    )
    (stage.folder / DESCRIPTORS).write_bytes((files("meshwright.gen") / DESCRIPTORS).read_bytes())
    card = AgentCard(agent_id=AGENT, endpoints=[Endpoint(instance_id="bench-1", target=agent.target)])
    EnvoyFiles(stage.folder).update({AGENT: card})
    await envoy.prepare(stage.folder, bootstrap.render(settings))
    part = await stage.start("edge", envoy.command(), None, stage.cores.serving)
    async with asyncio.timeout(PATIENCE_S):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await AgentServiceStub(channel).Health(HealthRequest(), metadata=METADATA, wait_for_ready=True)
    return port, part


def free_port() -> int:
    """Finds a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def streams(mesh: Mesh, port: int, parts: tuple[Part, Part]) -> tuple[float, float]:
    """Opens streams, each of a task of its own; returns the KiB that each holds in either process."""
    before = [part.resident_bytes() for part in parts]
    async with contextlib.AsyncExitStack() as stack:
        for first in range(0, STREAMS, AT_ONCE):
            tasks = [f"edge-{number}" for number in range(first, first + AT_ONCE)]
            await asyncio.gather(*(claimed(mesh, task_id) for task_id in tasks))
            for writer in await asyncio.gather(*(opened(port, task_id) for task_id in tasks)):
                stack.callback(writer.close)
        await asyncio.sleep(SETTLE_S)
        after = [part.resident_bytes() for part in parts]
    envoys, agents = ((now - then) / 1024 / STREAMS for now, then in zip(after, before, strict=True))
    return envoys, agents


async def opened(port: int, task_id: str) -> asyncio.StreamWriter:
    """Follows a task's events by HTTP/1.1 until the stream has begun."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise BenchmarkError(f"a stream was refused: {status!r}")
        await reader.readuntil(b"retry: ")
    return writer
