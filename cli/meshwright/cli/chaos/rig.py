"""The rig: a whole mesh to break, chaos agents in it, a client at its edge, and the evidence of what was done."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import grpc

from meshwright.cli import ports
from meshwright.cli.chaos.evidence import Evidence
from meshwright.cli.chaos.job import HOLD, Job, Word
from meshwright.cli.chaos.scenario import Setting
from meshwright.cli.child import Child
from meshwright.cli.credential import KeyedChannel
from meshwright.cli.edge import Edge
from meshwright.cli.mesh import HOST, Mesh, MeshPlan
from meshwright.cli.own_key import own_key
from meshwright.core.errors import InputNotPendingError, MeshError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import DECISION_SKIP, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import ResolveInputRequest

AGENT = "meshwright.cli.chaos.agents:{}"
MUTANT = "meshwright.cli.chaos.mutant"
AGENTS_MODULE = "meshwright.agents"
SCOPES = ("tasks:read", "tasks:write", "tasks:approve")
LEASE_S = 1.0
PATIENCE_S = 30.0
"""How long a task may take that is being disturbed; one that takes longer is lost."""
MUTANT_PATIENCE_S = 8.0
"""The same for a mutant, which is expected to lose it."""
RETRY_S = 0.2
SILENCE_S = 3.0
LOOK_S = 0.01
SWEEP_S = 1
BUSY_S = 10
"""What a takeover may take longer in the short form, which shares its machine with other scenarios and tests."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was ended by force, and when, in seconds since the epoch."""

    name: str
    pid: int
    at: float


@dataclass(slots=True)
class Told:
    """What a client was told about one job.

    Attributes:
        job: What it asked for.
        events: All numbered events of its stream, in the order in which they came.
        result: How the task ended; None: nobody said so in time.
        is_accepted: Whether the mesh took the task.
        refusal: Why it did not, or what broke the stream for good.
    """

    job: Job
    events: list[StepEvent] = field(default_factory=list)
    result: TaskResponse | None = None
    is_accepted: bool = False
    refusal: MeshError | None = None


class ChaosMesh(Mesh):
    """A mesh whose processes may be started in another way than `meshwright dev` starts them.

    Args:
        plan: What is wanted.
        tell: Takes a line for people whenever a process ends or runs again.
        disguise: Changes each process before it is started for the first time.
    """

    def __init__(self, plan: MeshPlan, tell: Callable[[str], None], disguise: Callable[[Child], None]) -> None:
        super().__init__(plan, None, tell)
        self._disguise = disguise

    def _child(self, name: str, command: list[str], environment: dict[str, str], *, speaks: bool = True) -> Child:
        child = super()._child(name, command, environment, speaks=speaks)
        self._disguise(child)
        return child


class Rig:
    """A mesh to break; use it as an asynchronous context.

    Args:
        setting: Of the scenario.
        agents: Which of the chaos agents run.
        workers: Further processes of each of them.
        lease_s: How long a lost worker keeps its tasks.
        disguise: Changes a process before it is started.
        scopes: What clients do, where the mesh's edge wants a key.

    Attributes:
        key: What the mesh's edge is shown; empty where it asks nobody.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        agents: Sequence[str] = ("courier",),
        workers: int = 1,
        lease_s: float = LEASE_S,
        disguise: Callable[[Child], None] | None = None,
        scopes: Sequence[str] = SCOPES,
    ) -> None:
        specs = [agent if ":" in agent else AGENT.format(agent) for agent in agents]
        self._first = specs[0].rpartition(":")[2]
        port = ports.reserve(HOST, set())
        plan = MeshPlan(port, setting.folder / "mesh", None, "offline", specs, 0, lease_s, (), workers)
        self.setting = setting
        self.lease_s = lease_s
        self.mesh = ChaosMesh(plan, self._heard, self._started)
        self.evidence = Evidence(setting.folder / "evidence")
        self.kills: list[Kill] = []
        self.stops: list[str] = []
        self.told: list[Told] = []
        self._disguise = disguise
        self._scopes = scopes
        self._away: set[str] = set()
        self._moments: set[tuple[str, str, int]] = set()
        self.key = ""
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts the mesh."""
        async with contextlib.AsyncExitStack() as ends:
            await self.mesh.start()
            ends.push_async_callback(self.mesh.stop)
            self.key = await ends.enter_async_context(own_key(self.store_url, "chaos", self._scopes))
            self.edge = Edge(self.mesh.edge_url, self.key)
            ends.push_async_callback(self.edge.close)
            tail = asyncio.create_task(self._follow())
            ends.callback(tail.cancel)
            self._ends = ends.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Stops the mesh, whatever happened."""
        await self._ends.aclose()
        for _ in self.evidence.fresh():
            pass

    def _started(self, child: Child) -> None:
        """Disguises a process: the first agent takes unnamed calls; a mutant stands in where the setting wants one."""
        if child.name == "gateway":
            child.environment["MESHWRIGHT_DEFAULT_AGENT"] = self._first
        if self.setting.mutant and AGENTS_MODULE in child.command:
            place = child.command.index(AGENTS_MODULE)
            child.command[place:place] = [MUTANT, self.setting.mutant]
        if self._disguise:
            self._disguise(child)

    def _heard(self, what: str) -> None:
        if "runs again" in what:
            self._away.discard(what.partition(" ")[0])

    def entry(self, target: str) -> str:
        """Returns where a client calls who would call a service past the edge: only the edge knows what a key is."""
        return f"{HOST}:{self.mesh.plan.port}" if self.key else target

    def keyed(self, wire: grpc.aio.Channel) -> grpc.aio.Channel:
        """Returns a channel as stubs use one, over the one given, whose calls bear the key where there is one."""
        return cast("grpc.aio.Channel", KeyedChannel(wire, self.key)) if self.key else wire

    @property
    def bound_s(self) -> float:
        """How long after its worker's death a task is taken over at the latest, by a worker that lives."""
        return self.lease_s + SWEEP_S + 1.0 + self.setting.size(BUSY_S, 0)

    def job(self, name: str, plan: Sequence[Word], pace_s: float = 0.05, below: Sequence[Word] = ()) -> Job:
        """Makes a job whose evidence is left here."""
        return Job(name, str(self.evidence.path), tuple(plan), pace_s, tuple(below))

    def request(self, job: Job, agent: str) -> TaskRequest:
        """Asks an agent to do a job; the job's name is the key."""
        return TaskRequest(task_id=job.name, agent_id=agent, prompt=job.prompt, max_steps=25)

    def processes(self, agent: str) -> list[Child]:
        """Returns the processes of an agent that run."""
        found = [child for child in self.mesh.children.values() if child.facts.get("agent") == agent]
        return [child for child in found if self.is_back(child)]

    def kill(self, child: Child, number: signal.Signals = signal.SIGKILL) -> Kill | None:
        """Ends a process by force, after which the mesh starts it again, or only stops it. None: it did not run."""
        pid = child.pid
        if not pid:
            return None
        if number is not signal.SIGSTOP:
            self._away.add(child.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        kill = Kill(child.name, pid, time.time())
        self.kills.append(kill)
        return kill

    def stop(self, child: Child) -> None:
        """Tells a process to stop, as an orderly restart does; the mesh starts it again."""
        self.stops.append(child.name)
        self._away.add(child.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds every job at its next model call."""
        hold = Path(f"{self.evidence.path}{HOLD}")
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def owner(self, job: str) -> Child | None:
        """Returns the process that worked on a job last, if it still runs."""
        traces = self.evidence.of(job)
        running = {child.pid: child for child in self.mesh.children.values() if child.pid}
        return running.get(traces[-1].pid) if traces else None

    async def whole(self) -> None:
        """Waits until every process that was killed is back."""
        await until(lambda: not self._away, PATIENCE_S)

    async def play(self, job: Job, agent: str, patience_s: float = PATIENCE_S) -> Told:
        """Has a job done and watches it to its end, as a client that asks again with the same id."""
        told = Told(job)
        self.told.append(told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MUTANT_PATIENCE_S if self.setting.mutant else patience_s):
                try:
                    await self._persistently(self.edge.tasks.SubmitTask, self.request(job, agent))
                    told.is_accepted = True
                    async for event in self._steps(job):
                        self._note(told, event)
                        await self._decide(told, event)
                except MeshError as error:
                    told.refusal = error
                    self.setting.tell(f"{job.name}: {error.message}")
        return told

    async def _steps(self, job: Job) -> AsyncIterator[StepEvent]:
        """Yields numbered events; silence counts as a broken stream, since a process may be stopped for good."""
        after, is_over = 0, False
        while not is_over:
            watching = self.edge.watch(job.name, after)
            with contextlib.suppress(TimeoutError):
                while not is_over:
                    async with asyncio.timeout(SILENCE_S):
                        event = await anext(watching, None)
                    is_over = event is None or event.HasField("result")
                    if event and event.sequence:
                        after = event.sequence
                        yield event

    def _note(self, told: Told, event: StepEvent) -> None:
        told.events.append(event)
        name, inner = told.job.name, event
        while inner.HasField("child"):
            name, inner = told.job.child.name, inner.child.event
        self._moments.add((name, inner.WhichOneof("event") or "", max(0, inner.step - 1)))
        if event.HasField("result"):
            told.result = event.result

    async def _decide(self, told: Told, event: StepEvent) -> None:
        """Decides as a person would: a call of which nobody knows whether it ran is not run again."""
        while event.HasField("child"):
            event = event.child.event
        if not event.HasField("input_requested"):
            return
        pending = event.input_requested
        request = ResolveInputRequest(
            task_id=pending.origin_task_id or told.job.name,
            input_id=pending.input_id,
            decision=DECISION_SKIP,
            intent_digest=pending.intent_digest,
        )
        with contextlib.suppress(InputNotPendingError):  # a try whose answer was lost has decided: the stream goes on
            await self._persistently(self.edge.tasks.ResolveInput, request)

    async def _persistently(self, method: Any, request: Any) -> None:
        """Repeats a keyed call until the mesh answers."""
        while True:
            try:
                await self.edge.call(method, request)
            except MeshError as error:
                if not error.is_retryable:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _follow(self) -> None:
        while True:
            for trace in self.evidence.fresh():
                self._moments.add((trace.job, trace.what, trace.step))
            await asyncio.sleep(LOOK_S)

    async def reached(self, playing: asyncio.Task[Told], job: str, what: str, step: int) -> bool:
        """Waits until a job has got to a moment: a trace of its evidence, or a kind of event in its stream.

        Returns:
            False: its task ended without.
        """
        moment = (job, what, step)
        await until(lambda: moment in self._moments or playing.done(), PATIENCE_S)
        return moment in self._moments

    def is_back(self, child: Child) -> bool:
        """Whether a process runs that was not killed, or is back since."""
        return bool(child.pid) and child.name not in self._away

    @property
    def store_url(self) -> str:
        """Where the store answers."""
        return str(self.mesh.facts()["store"])

    @property
    def store_folder(self) -> Path:
        """Where the store keeps its files."""
        return self.mesh.plan.data / "store"


async def until(is_so: Callable[[], bool], patience_s: float) -> bool:
    """Waits until something is so; False: it took too long."""
    ends = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(LOOK_S)
    return True
