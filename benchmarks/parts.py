"""The parts that are measured: real processes, each on its core, all ended with the stage."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from meshwright.agents.journal import LIBRARY as JOURNAL
from meshwright.agents.journal import Journal
from meshwright.agents.settings import AgentSettings
from meshwright.cli import ports
from meshwright.core.api_key import LIBRARY as KEYS
from meshwright.core.settings import Settings, child_environment
from meshwright.core.store import Store
from meshwright.core.valkey import EmbeddedValkey
from meshwright.registry.store import LIBRARY as REGISTRY

HERE = Path(__file__).parent
PATIENCE_S = 30.0
LONG_LEASE_S = 300.0
CLOCK_OF_PROCESS = 2
"""The kernel's number for the CPU time of a whole process; `~pid << 3` in front of it says of which one."""


class BenchmarkError(Exception):
    """A benchmark has measured something other than it claims to."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores serve and which generate load; the same ones where there is only one."""

    serving: frozenset[int]
    loading: frozenset[int]

    @classmethod
    def found(cls) -> "Cores":
        """Splits the cores that this process may use."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(frozenset(), frozenset())
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others or {first}))

    @property
    def are_apart(self) -> bool:
        """Whether server and load generator cannot take each other's time."""
        return bool(self.serving) and not self.serving & self.loading


class Part:
    """A process that is measured or helps to."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.target = ""
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Returns the user and system time that the process has used so far, all its threads included."""
        return time.clock_gettime_ns((~self.pid << 3) | CLOCK_OF_PROCESS) / 1e9

    def resident_bytes(self) -> int:
        """Returns the memory that the process holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def told(self) -> dict[str, object]:
        """Reads the next line that the process says.

        Raises:
            BenchmarkError: It has ended, or says nothing.
        """
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self.name} has ended: {self._log.read_text()[-2_000:]}")
        said: dict[str, object] = json.loads(line)
        return said

    def tell(self, line: str) -> None:
        """Writes a line to the process."""
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")

    async def stop(self) -> None:
        """Ends the process, gently first."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._process.wait()
                return
            self._process.kill()
        await self._process.wait()


@dataclass(frozen=True, slots=True)
class Mesh:
    """A store, a registry on it, and the library that writes to it from here."""

    valkey: Part
    registry: Part
    settings: AgentSettings
    store: Store
    journal: Journal

    async def functions_called(self) -> int:
        """Returns how many of the store's functions were run so far."""
        stats = await self.store.client.info("commandstats")
        return int(stats.get("cmdstat_fcall", {}).get("calls", 0))


@dataclass
class Stage:
    """Where benchmarks run: a folder and processes that are gone afterwards."""

    cores: Cores = field(default_factory=Cores.found)
    folder: Path = field(init=False)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _ports: set[int] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="meshwright-bench-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        if self.cores.loading:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self.cores.loading)
            self._stack.callback(os.sched_setaffinity, 0, before)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def port(self) -> int:
        """Returns a port that nobody uses, another one each time."""
        return ports.reserve("127.0.0.1", self._ports)

    async def python(self, name: str, *arguments: str, settings: Settings, **environment: str) -> Part:
        """Starts a Python program on the serving core and waits until it says that it is ready."""
        chosen = child_environment(settings) | environment
        chosen["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        part = await self.start(name, (sys.executable, *arguments), chosen, self.cores.serving)
        part.target = str((await part.told()).get("target", ""))
        return part

    async def start(
        self,
        name: str,
        command: Sequence[str],
        environment: dict[str, str] | None,
        cores: frozenset[int],
        folder: Path | None = None,
    ) -> Part:
        """Starts a process on some cores, in the stage's folder or another one; it is ended with the stage."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=folder or self.folder,
            )
        part = Part(name, process, log)
        self._stack.push_async_callback(part.stop)
        if cores:
            os.sched_setaffinity(part.pid, cores)
        return part

    def settings(self, **chosen: object) -> AgentSettings:
        """Returns settings as they are installed, but without traces and without waiting at the end."""
        return AgentSettings.model_validate({"tracing": False, "drain_s": 0, "log_level": "warning"} | chosen)

    async def mesh(self, name: str) -> Mesh:
        """Starts a store and a registry; they share the load generator's cores, since they are not what is measured."""
        embedded = EmbeddedValkey.prepare(self.folder / name)
        log = (*embedded.command, "--logfile", str(self.folder / f"{name}-valkey.log"))
        valkey = await self.start(f"{name}-valkey", log, None, self.cores.loading)
        settings = self.settings(store_url=embedded.url)
        store = Store(embedded.url, JOURNAL, KEYS, REGISTRY)
        await store.open(1)
        self._stack.push_async_callback(store.close)
        registry = await self.python(f"{name}-registry", "-m", "meshwright.registry", settings=settings)
        if self.cores.loading:
            pin_all(registry.pid, self.cores.loading)
        journal = Journal(store, "bench", lease_s=LONG_LEASE_S)
        return Mesh(valkey, registry, settings.model_copy(update={"registry": registry.target}), store, journal)

    async def agent(self, name: str, mesh: Mesh, **settings: object) -> Part:
        """Starts an agent's process on the serving core."""
        chosen = mesh.settings.model_copy(update={"concurrency": 64} | settings)
        return await self.python(name, "-m", "meshwright.agents", f"{HERE / 'agent.py'}:agent", settings=chosen)


@dataclass(frozen=True, slots=True)
class Scene:
    """What every benchmark finds: a stage, and on it a mesh with one agent."""

    stage: Stage
    mesh: Mesh
    agent: Part


def pin_all(pid: int, cores: frozenset[int]) -> None:
    """Moves every thread of a process to some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
