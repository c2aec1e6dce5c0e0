"""The edge: what it adds to a call, what Envoy's part of one costs, and what an open stream holds of memory.

All of it is on: API keys, buckets of address, principal and tenant, and for JSON the transcoder. The agent is called
directly without a key: what it does for an identity is the edge's doing.
"""

import asyncio
import contextlib
import json
import resource
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc

from benchmarks.findings import Finding
from benchmarks.load import closed_loop
from benchmarks.parts import PATIENCE_S, BenchmarkError, Mesh, Part, Scene, Stage
from benchmarks.rounds import Effort
from benchmarks.watchers import claimed
from meshwright.core.api_key import ApiKeys
from meshwright.gateway import envoy
from meshwright.gateway.clusters import static_cluster
from meshwright.gateway.config import FILTERS, TYPE, Config
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub

AGENT = "bench"
CALLS = 300
STREAMS = 1_000
AT_ONCE = 50
SETTLE_S = 1.0
FILES = 4_096
"""Open files that a thousand streams need, at the client and in Envoy."""
PLENTY = 100_000
"""Calls a second that the buckets hold: they count, and nobody is refused."""

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Door:
    """A way into the mesh through an Envoy."""

    port: int
    envoy: Part
    metadata: tuple[tuple[str, str], ...] = (("x-agent-id", AGENT),)


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures calls with and without the edge in turns, then a thousand streams."""
    stage = scene.stage
    mesh = await stage.mesh("edge")
    agent = await stage.agent("edge-agent", mesh, role="server")
    door, bare = await full_edge(stage, mesh), await bare_edge(stage, agent)
    calls = CALLS * effort.scale
    async with contextlib.AsyncExitStack() as stack:
        json_call = await stack.enter_async_context(by_json(door))
        near = await stack.enter_async_context(by_grpc(agent.target, ()))
        far = await stack.enter_async_context(by_grpc(f"127.0.0.1:{door.port}", door.metadata))
        plain = await stack.enter_async_context(by_grpc(f"127.0.0.1:{bare.port}", ()))
        sides = {
            "direct": lambda: measured(near, door.envoy, calls),
            "grpc": lambda: measured(far, door.envoy, calls),
            "json": lambda: measured(json_call, door.envoy, calls),
            "bare": lambda: measured(plain, bare.envoy, calls),
        }
        found = await effort.interleaved(sides)
    held = await streams(mesh, door, agent)
    return [*latencies(found), cpu(found), memory(held)]


async def measured(act: Act, edge: Part, calls: int) -> tuple[float, float]:
    """Calls one after the other; returns the median in ms, and Envoy's CPU a call in µs."""
    before = edge.cpu_s()
    seconds = await closed_loop(act, calls, 1)
    return statistics.median(seconds) * 1e3, (edge.cpu_s() - before) / calls * 1e6


def latencies(found: dict[str, list[tuple[float, float]]]) -> list[Finding]:
    """What the edge adds at the median, round by round."""
    direct_ms = statistics.median(median for median, _ in found["direct"])
    whats = {
        "grpc": ("edge_latency", "a gRPC call with an API key, one at a time: what the edge adds at the median", ""),
        "json": (
            "edge_json",
            "the same call as HTTP/JSON: what it takes longer at the median than a direct call of gRPC",
            "the client of JSON is a plain socket, that of gRPC is grpc.aio",
        ),
    }
    return [
        Finding(
            name,
            what,
            "ms",
            [mine - other for (mine, _), (other, _) in zip(found[side], found["direct"], strict=True)],
            goal=1.0,
            beside={"direct": f"{direct_ms:.2f} ms"},
            unequal=unequal,
        )
        for side, (name, what, unequal) in whats.items()
    ]


def cpu(found: dict[str, list[tuple[float, float]]]) -> Finding:
    """Envoy's part of a call, beside that of an Envoy that does nothing but pass it on."""
    beside = {side: statistics.median(cost for _, cost in found[side]) for side in ("json", "bare")}
    return Finding(
        "edge_cpu",
        "Envoy's part of the same call of gRPC",
        "µs CPU",
        [cost for _, cost in found["grpc"]],
        goal=150.0,
        beside={
            "as HTTP/JSON": f"{beside['json']:.0f} µs",
            "an Envoy that only passes calls on": f"{beside['bare']:.0f} µs",
        },
    )


def memory(held: tuple[float, float]) -> Finding:
    """What a stream holds."""
    return Finding(
        "edge_stream",
        f"memory of an idle stream of Server-Sent Events, {STREAMS} of them, each with a connection of its own",
        "KiB a stream, Envoy and agent together",
        [sum(held)],
        goal=60.0,
        beside={"Envoy": f"{held[0]:.1f} KiB", "agent": f"{held[1]:.1f} KiB"},
    )


async def full_edge(stage: Stage, mesh: Mesh) -> Door:
    """Starts a gateway's process and its Envoy, and makes a key."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    port, internal = stage.port(), stage.port()
    folder = stage.folder / "edge"
    settings = GatewaySettings(
        store_url=mesh.settings.store_url,
        registry=mesh.registry.target,
        port=0,
        edge_port=port,
        internal_port=internal,
        folder=str(folder),
        auth="keys",
        limit_address=PLENTY,
        limit_principal=PLENTY,
        limit_tenant=PLENTY,
        default_agent=AGENT,
        tracing=False,
        drain_s=0,
        log_level="warning",
    )
    await stage.python("gateway", "-m", "meshwright.gateway", settings=settings)
    part = await stage.start("envoy", envoy.command(), None, stage.cores.serving, folder)
    key, _ = await ApiKeys(mesh.store).create("bench", ["*"], tenant="default", principal="default")
    door = Door(port, part, (("x-agent-id", AGENT), ("x-api-key", key)))
    await answers(door)
    return door


async def bare_edge(stage: Stage, agent: Part) -> Door:
    """Starts an Envoy with a router and nothing else: what any Envoy costs on this machine."""
    port, folder = stage.port(), stage.folder / "bare"
    folder.mkdir()
    (folder / envoy.BOOTSTRAP).write_text(json.dumps(passing_on(port, agent.target)))
    door = Door(port, await stage.start("bare", envoy.command(), None, stage.cores.serving, folder))
    await answers(door)
    return door


def passing_on(port: int, target: str) -> Config:
    """An Envoy that passes every call on to one target."""
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": FILTERS + "router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "agent", "timeout": "0s"}}],
                }
            ]
        },
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [static_cluster("agent", target)]}}


async def answers(door: Door) -> None:
    """Waits until the agent answers through an Envoy."""
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await AgentServiceStub(channel).Health(HealthRequest(), metadata=door.metadata, wait_for_ready=True)
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def by_grpc(target: str, metadata: tuple[tuple[str, str], ...]) -> AsyncIterator[Act]:
    """Calls by gRPC, on one connection."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = AgentServiceStub(channel)

        async def act() -> None:
            answer = await stub.Health(HealthRequest(agent_id=AGENT), metadata=metadata)
            if answer.agent_id != AGENT:
                raise BenchmarkError(f"the answer is for {answer.agent_id!r}")

        yield act


@contextlib.asynccontextmanager
async def by_json(door: Door) -> AsyncIterator[Act]:
    """Calls by HTTP/JSON, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    request = f"GET /v1/agents/{AGENT}/health HTTP/1.1\r\nhost: localhost\r\n{headers_of(door)}\r\n".encode()

    async def act() -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        _, _, after = head.lower().partition(b"content-length:")
        body = json.loads(await reader.readexactly(int(after.partition(b"\r\n")[0] or 0)) or b"{}")
        if body.get("agent_id") != AGENT:
            raise BenchmarkError(f"the answer is {head!r} {body}")

    try:
        yield act
    finally:
        writer.close()


def headers_of(door: Door) -> str:
    """Writes what a caller sends along, as lines of HTTP/1.1."""
    return "".join(f"{name}: {value}\r\n" for name, value in door.metadata)


async def streams(mesh: Mesh, door: Door, agent: Part) -> tuple[float, float]:
    """Opens streams, each of a task of its own; returns the KiB that each holds in Envoy and in the agent."""
    parts = (door.envoy, agent)
    before = [part.resident_bytes() for part in parts]
    async with contextlib.AsyncExitStack() as stack:
        for first in range(0, STREAMS, AT_ONCE):
            tasks = [f"edge-{number}" for number in range(first, first + AT_ONCE)]
            await asyncio.gather(*(claimed(mesh, task_id) for task_id in tasks))
            for writer in await asyncio.gather(*(opened(door, task_id) for task_id in tasks)):
                stack.callback(writer.close)
        await asyncio.sleep(SETTLE_S)
        after = [part.resident_bytes() for part in parts]
    envoys, agents = ((now - then) / 1024 / STREAMS for now, then in zip(after, before, strict=True))
    return envoys, agents


async def opened(door: Door, task_id: str) -> asyncio.StreamWriter:
    """Follows a task's events by HTTP/1.1 until the stream has begun."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        request = f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\nhost: localhost\r\n{headers_of(door)}\r\n"
        writer.write(request.encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise BenchmarkError(f"a stream was refused: {status!r}")
        await reader.readuntil(b"retry: ")
    return writer
