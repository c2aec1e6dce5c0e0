"""Networks that fail: five faults on four hops; whoever calls is answered in time, and afterwards all is well again."""

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

import grpc

from meshwright.cli import ports
from meshwright.cli.chaos.job import Job, Word
from meshwright.cli.chaos.proxy import FAULTS, Fault, Proxy
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.child import Child
from meshwright.cli.mesh import HOST
from meshwright.core import channel
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub

EDGE, REGISTRY, STORE, NEIGHBOUR = "edge", "registry", "store", "neighbour"
"""The proxies: before Envoy, between the caller's agent and registry or store, and before the other agent."""
TOLERANCE_S = 0.75
"""What a loaded machine may add to a deadline: the client's own timer ends a call, but must get its turn."""
RECOVERY_S = 15.0
RETRY_S = 0.1
AGENT = "trader"
TYPED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Hop:
    """Where the network fails, and a plan of work that passes there."""

    name: str
    proxy: str
    plan: tuple[Word, ...]


HOPS = (
    Hop("client to edge", EDGE, ("look",)),
    Hop("agent to registry", REGISTRY, ("look", "post")),
    Hop("agent to store", STORE, ("look", "mark")),
    Hop("agent to tool host", NEIGHBOUR, ("look", "post")),
    Hop("parent to child", NEIGHBOUR, ("look", "ask")),
)


@dataclass(slots=True)
class Answered:
    """How a call ended, and after how long."""

    code: grpc.StatusCode
    seconds: float


class Network:
    """Proxies on every hop of a rig.

    Args:
        setting: Of the scenario.
    """

    def __init__(self, setting: Setting) -> None:
        taken: set[int] = set()
        self.proxies = {name: Proxy(0, ports.reserve(HOST, taken)) for name in (EDGE, REGISTRY, STORE, NEIGHBOUR)}
        self.rig = Rig(setting, agents=("trader", "helper"), workers=0, disguise=self._route)
        self.proxies[EDGE].target = self.rig.mesh.plan.port

    def _route(self, child: Child) -> None:
        """Leads the hops of a process through the proxies."""
        own_port = int(child.environment.get("MESHWRIGHT_PORT", "0"))
        if child.name == "registry":
            self.proxies[REGISTRY].target = own_port
        elif child.name.endswith("helper"):
            self.proxies[NEIGHBOUR].target = own_port
            place = child.command.index("meshwright.agents")
            child.command[place:place] = ["meshwright.cli.chaos.behind", self.address(NEIGHBOUR)]
        elif child.name.endswith("trader"):
            self.proxies[STORE].target = unquote(urlsplit(child.environment["MESHWRIGHT_STORE_URL"]).path)
            child.environment["MESHWRIGHT_STORE_URL"] = f"redis://{self.address(STORE)}/0"
            child.environment["MESHWRIGHT_REGISTRY"] = self.address(REGISTRY)

    def address(self, name: str) -> str:
        """Returns host:port of a proxy."""
        return f"{HOST}:{self.proxies[name].port}"

    async def __aenter__(self) -> Self:
        """Starts proxies and mesh."""
        for proxy in self.proxies.values():
            await proxy.start()
        try:
            await self.rig.__aenter__()
        except BaseException:
            await self._stop_proxies()
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Stops both."""
        for proxy in self.proxies.values():
            proxy.set("")
        await self.rig.__aexit__(*failure)
        await self._stop_proxies()

    async def _stop_proxies(self) -> None:
        for proxy in self.proxies.values():
            await proxy.stop()

    def target(self, hop: Hop) -> str:
        """Where the client of a hop calls: the edge for its own, else the agent itself, past all else that may fail."""
        return self.address(EDGE) if hop.proxy == EDGE else self.rig.entry(self.rig.processes(AGENT)[0].target)


class Cell:
    """One fault on one hop.

    Args:
        network: With the proxies.
        hop: Where.
        fault: Which.
        deadline_s: Of each call, and how long the fault lasts at least.
    """

    def __init__(self, network: Network, hop: Hop, fault: Fault, deadline_s: float) -> None:
        self.name = f"{fault} from {hop.name}"
        self.answers: list[Answered] = []
        self.recovered_s = 0.0
        self.stranded: list[str] = []
        self._rig, self._hop, self._deadline_s = network.rig, hop, deadline_s
        self._fault: Fault = fault
        self._proxy = network.proxies[hop.proxy]
        self._target = network.target(hop)

    def _job(self, part: str) -> Job:
        name = f"{self._fault}-{self._hop.name.replace(' ', '-')}-{part}"
        return self._rig.job(name, self._hop.plan, 0.02, ("look",))

    async def play(self) -> None:
        """Calls while the network fails, and again when it is whole."""
        wire = channel.dial(self._target)
        try:
            await self._answered(wire, self._job("before"))
            self._proxy.set(self._fault)
            jobs = [self._job("run"), self._job("submit")]
            waiting = self._answered(wire, jobs[0])
            self.answers += await asyncio.gather(waiting, self._answered(wire, jobs[1], is_waiting=False))
            self._proxy.set("")
            lifted = time.monotonic()
            await self._recover(wire)
            self.recovered_s = time.monotonic() - lifted
            self.stranded = [job.name for job in jobs if not await self._has_ended(job)]
        finally:
            self._proxy.set("")
            await wire.close()

    async def _answered(self, to: grpc.aio.Channel, job: Job, *, is_waiting: bool = True) -> Answered:
        keyed = self._rig.keyed(to)
        stub = AgentServiceStub(keyed).RunTask if is_waiting else TaskServiceStub(keyed).SubmitTask
        request = TaskRequest(task_id=job.name, agent_id=AGENT, prompt=job.prompt)
        started = time.monotonic()
        code = grpc.StatusCode.OK
        try:
            await stub(request, timeout=self._deadline_s, metadata=[("x-agent-id", AGENT)])
        except grpc.aio.AioRpcError as error:
            code = error.code()
        return Answered(code, time.monotonic() - started)

    async def _recover(self, to: grpc.aio.Channel) -> None:
        """Works until a new task is done, with the right answer, on the connections that have been through it."""
        agent = AgentServiceStub(self._rig.keyed(to))
        ends, attempt = time.monotonic() + RECOVERY_S, 0
        while time.monotonic() < ends:
            job = self._job(f"after-{attempt}")
            with contextlib.suppress(grpc.aio.AioRpcError):
                request = TaskRequest(task_id=job.name, agent_id=AGENT, prompt=job.prompt)
                metadata = [("x-agent-id", AGENT)]
                result: TaskResponse = await agent.RunTask(request, timeout=3, metadata=metadata)
                if job.is_right(result.output):
                    return
            attempt += 1
            await asyncio.sleep(RETRY_S)
        self.stranded.append("new tasks")

    async def _has_ended(self, job: Job) -> bool:
        """Whether a task, if it was accepted, ends."""
        edge = self._rig.edge
        with contextlib.suppress(TimeoutError, MeshError):
            async with asyncio.timeout(RECOVERY_S):
                try:
                    await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id=job.name))
                except MeshError as error:
                    return error.code is grpc.StatusCode.NOT_FOUND
                async for event in edge.watch(job.name):
                    if event.HasField("result"):
                        return True
        return False

    def report(self, row: Row) -> None:
        """Checks what must hold in every cell."""
        latest = max(answer.seconds for answer in self.answers)
        odd = sorted({answer.code.name for answer in self.answers if answer.code not in TYPED})
        row.check(not odd, f"{self.name}: answered {', '.join(odd)}")
        bound = self._deadline_s + TOLERANCE_S
        row.check(latest <= bound, f"{self.name}: an answer took {latest:.1f} s, more than {bound:.1f} s")
        row.check(not self.stranded, f"{self.name}: did not end or work again: {', '.join(self.stranded)}")


def cells(setting: Setting) -> list[tuple[Hop, Fault]]:
    """Picks the cells: all in full, else every fault and every hop at least once."""
    everything: list[tuple[Hop, Fault]] = [(hop, fault) for hop in HOPS for fault in FAULTS]
    if setting.is_full:
        return everything
    faults: list[Fault] = random.Random(setting.seed).sample(FAULTS, len(FAULTS))  # noqa: S311 - no secret
    return list(zip(HOPS, faults, strict=True))


async def play(setting: Setting) -> Row:
    """Plays the cells one after the other, in one mesh that must survive all of them."""
    deadline_s = 2.0 if setting.is_full else 1.0
    played: list[Cell] = []
    async with Network(setting) as network:
        for hop, fault in cells(setting):
            cell = Cell(network, hop, fault, deadline_s)
            setting.tell(cell.name)
            await cell.play()
            played.append(cell)
    row = Row(f"{len(played)} cells of {len(FAULTS)} faults and {len(HOPS)} hops")
    for cell in played:
        cell.report(row)
    answers = [answer for cell in played for answer in cell.answers]
    row.figures = {
        "answered in time": f"{sum(answer.seconds <= deadline_s + TOLERANCE_S for answer in answers)}/{len(answers)}",
        "works again after max": f"{max(cell.recovered_s for cell in played):.1f} s",
    }
    return row
