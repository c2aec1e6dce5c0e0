"""Start-up: what an agent's process imports, and how long a whole mesh takes to its first step."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.findings import FEWEST_ROUNDS, Finding
from benchmarks.parts import BenchmarkError, Scene, Stage, pin_all
from benchmarks.rounds import Effort
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

AGENT = "import meshwright.agents, meshwright.agents.serving"
LEAST = "import grpc, redis.asyncio"
PATIENCE_S = 60.0


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures imports, and in full the mesh."""
    stage = scene.stage
    for code in (AGENT, LEAST):
        await cpu_of(stage, code)  # compiles what is not compiled yet

    def imports(code: str) -> Callable[[], Awaitable[float]]:
        return lambda: cpu_of(stage, code)

    found = await effort.interleaved({"agent": imports(AGENT), "least": imports(LEAST)})
    findings = [
        Finding(
            name="import",
            what=f"`{AGENT}` against `{LEAST}`",
            unit="s CPU",
            ours=found["agent"],
            theirs=found["least"],
            goal=1.2,
            is_gated=True,
            unequal="ours brings protobuf, its contracts and a signature library along",
        )
    ]
    if effort.is_full:
        waits = [await first_step(stage, turn) for turn in range(FEWEST_ROUNDS)]
        what = "`meshwright dev` to the first step of a task at the edge, on a new data folder"
        findings.append(Finding("first_step", what, "s", waits, goal=5.0))
    return findings


async def cpu_of(stage: Stage, code: str) -> float:
    """Runs code in a fresh interpreter; returns its user and system seconds.

    Modules are compiled once, ours as well as those of packages, wherever this runs.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled = inherited | {"PYTHONPYCACHEPREFIX": str(stage.folder / "pycache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=compiled)
    if stage.cores.serving:
        os.sched_setaffinity(process.pid, stage.cores.serving)
    if await process.wait():
        raise BenchmarkError(f"{code!r} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def first_step(stage: Stage, turn: int) -> float:
    """Starts a whole mesh on all cores; returns the seconds to the first event of a task."""
    port = stage.port()
    ready = stage.folder / f"ready-{turn}.json"
    options = ("--port", str(port), "--data", str(stage.folder / f"mesh-{turn}"), "--ready-file", str(ready))
    started = time.perf_counter()
    command = (sys.executable, "-m", "meshwright.cli.main", "dev", *options)
    part = await stage.start(f"dev-{turn}", command, None, frozenset())
    if stage.cores.loading:
        pin_all(part.pid, stage.cores.serving | stage.cores.loading)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not ready.exists():  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.02)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = AgentServiceStub(channel).StreamSteps(TaskRequest(prompt="What is 12 * 7?"))
                async for event in call:
                    if event.sequence:
                        return time.perf_counter() - started
    finally:
        await part.stop()
    raise BenchmarkError("the mesh brought no step")
