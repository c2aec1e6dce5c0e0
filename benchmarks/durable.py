"""A durable task against a bare stream of the same messages that keeps nothing."""

import statistics
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

import grpc

from benchmarks.findings import Finding, percentile, spread
from benchmarks.load import closed_loop, random_phases
from benchmarks.parts import BenchmarkError, Mesh, Part, Scene
from benchmarks.rounds import Effort
from benchmarks.served import record
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

IN_FLIGHT = 8
BUSY = 0.4
"""Share of the serving core that random arrivals take: below it nothing queues, above it everything does."""
UNEQUAL = (
    "the bare stream has its messages at hand and writes them in one go; ours makes each of them, waits for the disk "
    "before it shows one, and is asked by metadata for the task's id"
)


@dataclass(frozen=True, slots=True)
class Round:
    """One side's round: CPU by process in ms a task, functions of the store a task, latencies in ms."""

    cpu_ms: float
    store_ms: float
    functions: float
    latencies_ms: list[float]


class Streams:
    """A caller of StreamSteps that counts what it gets."""

    def __init__(self, part: Part, channel: grpc.aio.Channel) -> None:
        self.part = part
        self._stub = AgentServiceStub(channel)

    def call(self, shape: str) -> AsyncIterable[StepEvent]:
        """Runs one task."""
        call: AsyncIterable[StepEvent] = self._stub.StreamSteps(
            TaskRequest(prompt=shape, max_steps=25, token_budget=32_768)
        )
        return call

    async def events(self, shape: str) -> list[StepEvent]:
        """Runs one task and returns its events."""
        return [event async for event in self.call(shape)]

    def act(self, shape: str, many: int) -> Callable[[], Awaitable[None]]:
        """Returns a task that has to bring `many` events, numbered without a hole, the last of them its result."""

        async def task() -> None:
            events = await self.events(shape)
            is_whole = [event.sequence for event in events] == list(range(1, many + 1))
            if not is_whole or not events[-1].HasField("result"):
                raise BenchmarkError(f"{self.part.name}: {len(events)} events of {many}, or not in order")

        return task


def events_of(rounds: int, calls: int) -> int:
    """Counts a task's events: its start, each round's answer, intents and outcomes, the last answer, the result."""
    return 3 + rounds * (1 + 2 * calls)


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures two shapes of task under both kinds of load."""
    stage, mesh, agent = scene.stage, scene.mesh, scene.agent
    folder = stage.folder / "streams"
    folder.mkdir(exist_ok=True)
    bare = await stage.python("bare", "-m", "benchmarks.served", "bare", str(folder), settings=mesh.settings)
    async with grpc.aio.insecure_channel(bare.target) as one, grpc.aio.insecure_channel(agent.target) as other:
        sides = {"bare": Streams(bare, one), "ours": Streams(agent, other)}
        findings = []
        for name, rounds, goal in (("durable", 1, 3.5), ("durable_long", 5, None)):
            shape = f"{rounds}x1"
            many = events_of(rounds, 1)
            recorded = await sides["ours"].events(shape)
            if len(recorded) != many:
                raise BenchmarkError(f"a task {shape} has {len(recorded)} events, not {many}")
            record(folder / shape, recorded)
            findings += await compared(name, shape, goal, Contest(sides, mesh, effort))
    await bare.stop()
    return findings


@dataclass(frozen=True, slots=True)
class Contest:
    """Who is compared, on which store, how thoroughly."""

    sides: dict[str, Streams]
    mesh: Mesh
    effort: Effort


async def compared(name: str, shape: str, goal: float | None, contest: Contest) -> list[Finding]:
    """Measures one shape of task."""
    sides, mesh, effort = contest.sides, contest.mesh, contest.effort
    many = events_of(*map(int, shape.split("x")))
    tasks = 30 * effort.scale

    def closed(side: Streams) -> Callable[[], Awaitable[Round]]:
        return lambda: one_round(side, mesh, tasks, closed_loop(side.act(shape, many), tasks, IN_FLIGHT))

    found = await effort.interleaved({kind: closed(side) for kind, side in sides.items()})
    what = f"task of {many - 1} journaled events and a result, {functions(found['ours'])} Lua calls"
    findings = [finding(name, f"{what}, {IN_FLIGHT} at once", found, goal, is_gated=True)]
    if goal is None and not effort.is_full:
        return findings
    per_s = BUSY / (statistics.median(one.cpu_ms for one in found["ours"]) / 1000)

    def open_(side: Streams) -> Callable[[], Awaitable[Round]]:
        act = side.act(shape, many)
        return lambda: one_round(side, mesh, tasks, random_phases(act, tasks, per_s, effort.rng))

    apart = await effort.interleaved({kind: open_(side) for kind, side in sides.items()})
    return [*findings, finding(f"{name}_apart", f"{what}, random arrivals", apart, goal, is_gated=False)]


async def one_round(side: Streams, mesh: Mesh, tasks: int, load: Awaitable[list[float]]) -> Round:
    """Puts load on one side and reads what it cost."""
    called, cpu, store = await mesh.functions_called(), side.part.cpu_s(), mesh.valkey.cpu_s()
    latencies = await load
    cpu, store = side.part.cpu_s() - cpu, mesh.valkey.cpu_s() - store
    called = await mesh.functions_called() - called
    return Round(cpu / tasks * 1000, store / tasks * 1000, called / tasks, [1000 * one for one in latencies])


def functions(rounds: list[Round]) -> int:
    """Returns the store's functions a task; the few calls of the sweeps round to nothing."""
    return round(statistics.median(one.functions for one in rounds))


def finding(name: str, what: str, found: dict[str, list[Round]], goal: float | None, *, is_gated: bool) -> Finding:
    """Sums rounds up."""
    ours, bare = found["ours"], found["bare"]
    latencies = [latency for one in ours for latency in one.latencies_ms]
    return Finding(
        name=name,
        what=what,
        unit="ms CPU of the serving process a task",
        ours=[one.cpu_ms for one in ours],
        theirs=[one.cpu_ms for one in bare],
        goal=goal,
        is_gated=is_gated,
        beside={
            "the store's CPU, ms a task": spread([one.store_ms for one in ours]),
            "Lua calls a task": spread([one.functions for one in ours]),
            "latency p50 / p99 of all rounds, ms": (
                f"{percentile(latencies, 0.5):.1f} / {percentile(latencies, 0.99):.1f}"
            ),
        },
        unequal=UNEQUAL,
    )
