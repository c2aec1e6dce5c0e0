"""Flat: a task costs the same however many lie in the store already, an event the same however long its journal is."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.durable import IN_FLIGHT, Round, Streams, events_of, one_round
from benchmarks.findings import Finding, spread
from benchmarks.load import closed_loop
from benchmarks.parts import BenchmarkError, Mesh, Part, Scene
from benchmarks.rounds import Effort
from benchmarks.watchers import HOUR_MS
from meshwright.agents.task import NewTask, TaskName
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

FEW, MANY = 10, 10_000
WRITERS = 64
SHAPE = "5x1"
LONG = "24x21"
"""1,035 events in one journal."""
EARLY, LATE = (2, 7), (18, 23)
"""Rounds between which CPU is read: 215 events each. A round's answer comes when all of the round before is done."""


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures an event's cost along a long journal, and in full a task's cost in a full store."""
    findings = [await along_a_journal(effort, scene.agent)]
    if effort.is_full:
        findings += await in_a_full_store(scene, effort)
    return findings


async def along_a_journal(effort: Effort, agent: Part) -> Finding:
    """Compares early events of a long task with late ones of the same task."""
    early, late = [], []
    async with grpc.aio.insecure_channel(agent.target) as channel:
        for turn in range(1 + effort.rounds):
            first, last = await stretches(Streams(agent, channel), agent)
            if turn:  # the one before warms up
                early.append(first)
                late.append(last)
    return Finding(
        name="flat_journal",
        what=f"an event late in a task {LONG} (of 1,035) against an early one of the same journal",
        unit="µs CPU of the agent an event",
        ours=late,
        theirs=early,
        goal=1.2,
        is_gated=True,
    )


async def stretches(streams: Streams, agent: Part) -> tuple[float, float]:
    """Runs one long task; returns the agent's µs an event in an early stretch and in a late one."""
    at: dict[int, float] = {}
    seen = warnings = 0
    rounds, calls = map(int, LONG.split("x"))
    async for event in streams.call(LONG):
        seen = event.sequence
        warnings += event.HasField("budget")  # its rounds come near their end
        if event.HasField("llm_call"):
            at[event.step] = agent.cpu_s()
    if seen != events_of(rounds, calls) + warnings:
        raise BenchmarkError(f"a task {LONG} ended after {seen} events")

    def cost_us(stretch: tuple[int, int]) -> float:
        begin, end = stretch
        return (at[end] - at[begin]) / (end - begin) / (1 + 2 * calls) * 1e6

    return cost_us(EARLY), cost_us(LATE)


async def fill(mesh: Mesh, many: int) -> None:
    """Puts ended tasks into a store."""
    numbers = iter(range(many))
    request = TaskRequest(prompt="Done long ago.", max_steps=10, token_budget=8192)
    end = StepEvent(result=TaskResponse(status=TASK_STATUS_COMPLETED, output="Done."))

    async def writer() -> None:
        for number in numbers:
            task_id = f"old-{number}"
            name = TaskName("default", "default", task_id)
            task = NewTask(name, "done-long-ago", task_id, request, HOUR_MS, root_id=task_id)
            accepted = await mesh.journal.accept(task, claim=True)
            assert accepted.claim
            await mesh.journal.finish(accepted.claim, "COMPLETED", [end])

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


async def in_a_full_store(scene: Scene, effort: Effort) -> list[Finding]:
    """Compares a store of many tasks with one of few; each has an agent of its own."""
    stage, mesh, agent = scene.stage, scene.mesh, scene.agent
    sparse = await stage.mesh("sparse")
    other = await stage.agent("sparse-agent", sparse)
    await fill(sparse, FEW)
    await fill(mesh, MANY)
    tasks, many = 30 * effort.scale, events_of(*map(int, SHAPE.split("x")))
    async with contextlib.AsyncExitStack() as stack:

        async def side(place: Mesh, part: Part) -> Callable[[], Awaitable[Round]]:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(part.target))
            streams = Streams(part, channel)
            return lambda: one_round(streams, place, tasks, closed_loop(streams.act(SHAPE, many), tasks, IN_FLIGHT))

        sides = {"few": await side(sparse, other), "many": await side(mesh, agent)}
        found = await effort.interleaved(sides)
    return [
        Finding(
            name="flat_store",
            what=f"a task in a store of {MANY:,} tasks against one in a store of {FEW}",
            unit="ms CPU of the agent a task",
            ours=[one.cpu_ms for one in found["many"]],
            theirs=[one.cpu_ms for one in found["few"]],
            goal=1.2,
            beside={
                "the full store's CPU, ms a task": spread([one.store_ms for one in found["many"]]),
                "the sparse store's": spread([one.store_ms for one in found["few"]]),
            },
            unequal="the sparse store gathers the tasks of the measurement itself, as the full one does",
        )
    ]
