"""A trivial unary call through our interceptors against bare grpc.aio with the same handler."""

from collections.abc import Awaitable, Callable

import grpc

from benchmarks.findings import Finding, percentile
from benchmarks.load import closed_loop, random_phases
from benchmarks.parts import BenchmarkError, Part, Scene
from benchmarks.rounds import Effort
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub

IN_FLIGHT = 8
APART_PER_S = 600.0
APART = 600
"""Calls of a round at random moments."""
SAMPLED = 0.01
UNEQUAL = "the bare server counts nothing, maps no errors, sets no deadline and asks nobody who is calling"
GOALS = {"unary": 1.25, "unary_sampled": 1.35, "unary_lean": 1.35, "unary_traced": None}
WORDS = {
    "unary": "unary call, not traced",
    "unary_sampled": "unary call, 1 % of traces sampled",
    "unary_lean": "unary call, 1 % of traces sampled, spans by our own code",
    "unary_traced": "unary call, every trace sampled, none exported",
}


class Caller:
    """A caller of one server; reads what its calls cost."""

    def __init__(self, part: Part, channel: grpc.aio.Channel) -> None:
        self.part = part
        self._stub = AgentServiceStub(channel)
        self.latencies: list[float] = []

    async def act(self) -> None:
        """Calls once."""
        answer = await self._stub.Health(HealthRequest(agent_id="bench"))
        if answer.agent_id != "bench":
            raise BenchmarkError(f"{self.part.name} answered for {answer.agent_id!r}")

    async def cost_us(self, calls: int, load: Awaitable[list[float]]) -> float:
        """Puts load on the server; returns its CPU a call."""
        before = self.part.cpu_s()
        self.latencies += await load
        return (self.part.cpu_s() - before) / calls * 1e6


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures a call without and with traces, under both kinds of load."""
    stage, serve = scene.stage, ("-m", "benchmarks.served")
    quiet, traced = stage.settings(), stage.settings(tracing=True)
    sampled = stage.settings(tracing=True, trace_rate=SAMPLED)
    parts = {
        "bare": await stage.python("unary-bare", *serve, "bare", str(stage.folder), settings=quiet),
        "unary": await stage.python("unary", *serve, "mesh", str(stage.folder), settings=quiet),
        "unary_sampled": await stage.python("unary-sampled", *serve, "mesh", str(stage.folder), settings=sampled),
    }
    lean = sampled.model_copy(update={"lean_spans": True})
    parts["unary_lean"] = await stage.python("unary-lean", *serve, "mesh", str(stage.folder), settings=lean)
    if effort.is_full:
        parts["unary_traced"] = await stage.python("unary-traced", *serve, "mesh", str(stage.folder), settings=traced)
    channels = {name: grpc.aio.insecure_channel(part.target) for name, part in parts.items()}
    callers = {name: Caller(part, channels[name]) for name, part in parts.items()}
    calls = 400 * effort.scale

    def closed(caller: Caller) -> Callable[[], Awaitable[float]]:
        return lambda: caller.cost_us(calls, closed_loop(caller.act, calls, IN_FLIGHT))

    def apart(caller: Caller) -> Callable[[], Awaitable[float]]:
        return lambda: caller.cost_us(APART, random_phases(caller.act, APART, APART_PER_S, effort.rng))

    found = findings(await effort.interleaved({name: closed(one) for name, one in callers.items()}), callers, "")
    if effort.is_full:
        later = await effort.interleaved({name: apart(one) for name, one in callers.items()})
        found += findings(later, callers, "_apart")
    for name, part in parts.items():
        await channels[name].close()
        await part.stop()
    return found


def findings(costs: dict[str, list[float]], callers: dict[str, Caller], suffix: str) -> list[Finding]:
    """Sums rounds up."""
    found = []
    for name, ours in costs.items():
        if name == "bare":
            continue
        latencies = [1000 * one for one in callers[name].latencies]
        found.append(
            Finding(
                name=name + suffix,
                what=WORDS[name] + (", random arrivals" if suffix else f", {IN_FLIGHT} at once"),
                unit="µs CPU of the server a call",
                ours=ours,
                theirs=costs["bare"],
                goal=GOALS[name],
                is_gated=not suffix,
                beside={"latency p50, ms": f"{percentile(latencies, 0.5):.2f}"},
                unequal=UNEQUAL,
            )
        )
        callers[name].latencies.clear()
    return found
