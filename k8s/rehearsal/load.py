"""Load: clients that make keyed calls all the time, and the evidence of what was done for them."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from k8s.rehearsal.client import PATIENCE_S, Call, Client, Kind
from k8s.rehearsal.cluster import Cluster
from k8s.rehearsal.pod import Pod
from meshwright.cli.chaos.evidence import Evidence
from meshwright.cli.chaos.job import Job, Word
from meshwright.cli.chaos.rig import Kill, Told
from meshwright.cli.edge import Edge
from meshwright.core.api_key import LIBRARY, ApiKeys
from meshwright.core.store import Store

SCOPES = ("tasks:read", "tasks:write", "tasks:approve", "tools:read", "tools:invoke")
PLANS: dict[Kind, tuple[Word, ...]] = {
    "run": ("mark", "send", "post"),
    "stream": ("look", "send", "ask"),
    "tool": ("mark",),
}
BELOW: tuple[Word, ...] = ("mark",)
CLIENTS: tuple[Kind, ...] = ("run", "stream", "stream", "tool", "tool")
"""So many calls are under way at once, each client with a connection of its own."""
PACE_S = 0.05
PAUSE_S = 0.2
LOOK_S, LOOKED_S = 0.01, 10.0
SETTLED_S = 3.0
"""How long the load goes on at least after a phase's work, in the same phase."""


@dataclass(slots=True)
class Phase:
    """What was done while calls were made, when, and how long the work took."""

    name: str
    started: float
    ended: float = 0.0
    work_s: float = 0.0


class Load:
    """Keyed calls under way; use it as an asynchronous context.

    Args:
        cluster: Whose edge is called.
        folder: Takes the evidence.

    Attributes:
        calls: All of them.
        told: What was told about each task.
        kills: Processes that were ended by force.
        phases: In the order in which they were.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.evidence = Evidence(folder / "evidence")
        self.calls: list[Call] = []
        self.told: list[Told] = []
        self.kills: list[Kill] = []
        self.phases: list[Phase] = []
        self._cluster = cluster
        self._numbers = itertools.count()
        self._is_over = False
        self._clients: list[asyncio.Task[None]] = []
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Makes an API key, and begins."""
        async with contextlib.AsyncExitStack() as ends:
            key = await self._key()
            authority = str(self._cluster.secrets.public_authority)
            for kind in CLIENTS:
                edge = Edge(self._cluster.edge_url, key, authority=authority)
                ends.push_async_callback(edge.close)
                self._clients.append(asyncio.create_task(self._calls(kind, Client(edge))))
            self._ends = ends.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Ends: what is under way is waited for, unless something has failed."""
        self._is_over = True
        try:
            async with asyncio.timeout(0 if failure[0] else PATIENCE_S + SETTLED_S):
                await asyncio.gather(*self._clients)
        except TimeoutError:
            await asyncio.gather(*self._clients, return_exceptions=True)
        finally:
            await self._ends.aclose()

    async def _key(self) -> str:
        store = Store(self._cluster.store_url, LIBRARY)
        try:
            await store.open()
            key, _ = await ApiKeys(store).create("rehearsal", SCOPES, tenant="default", life_s=86_400)
        finally:
            await store.close()
        return key

    async def _calls(self, kind: Kind, client: Client) -> None:
        while not self._is_over:
            job = Job(f"{kind}-{next(self._numbers)}", str(self.evidence.path), PLANS[kind], PACE_S, BELOW)
            call, told = Call(kind, job, time.monotonic()), Told(job)
            self.calls.append(call)
            if kind != "tool":
                self.told.append(told)
            await client.make(call, told)
            await asyncio.sleep(PAUSE_S)

    @contextlib.asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[Phase]:
        """Names what is done meanwhile; the phase lasts until every call is answered that the work has met."""
        phase = Phase(name, time.monotonic())
        self.phases.append(phase)
        try:
            yield phase
            phase.work_s = time.monotonic() - phase.started
            met = [call for call in self.calls if not call.ended]
            await asyncio.sleep(SETTLED_S)
            while not all(call.ended for call in met):  # noqa: ASYNC110 - each ends, if only by its client's patience
                await asyncio.sleep(LOOK_S)
        finally:
            phase.ended = time.monotonic()

    async def busy(self, pods: Sequence[Pod]) -> Pod:
        """Returns the pod of several that is seen at work first; the oldest where none of them leaves evidence."""
        working = {pid: pod for pod in pods for pid in pod.pids}
        if not any(trace.pid in working for trace in (*self.evidence.fresh(), *self.evidence.traces)):
            return pods[0]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_S):
                while True:
                    fresh = [trace for trace in self.evidence.fresh() if trace.pid in working]
                    if fresh:
                        return working[fresh[-1].pid]
                    await asyncio.sleep(LOOK_S)
        return pods[0]

    def in_phase(self, phase: Phase) -> Iterator[Call]:
        """Yields the calls that were begun in a phase."""
        return (call for call in self.calls if phase.started <= call.started < phase.ended)
