"""A whole mesh on one machine, as one supervised process tree."""

import asyncio
import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwright.agents.library.bundle import BUNDLED, spec_of
from meshwright.agents.settings import AgentSettings
from meshwright.cli import ports, ready_file, tool_files
from meshwright.cli.agent_spec import AgentSpec, own_agents, worker_of
from meshwright.cli.child import DISK, Child
from meshwright.cli.edge import Edge
from meshwright.cli.model_failures import ModelFailures
from meshwright.core.errors import CredentialsMissingError, MeshError, SetupError, UnavailableError
from meshwright.core.settings import Settings, child_environment
from meshwright.core.store import Store
from meshwright.core.valkey import EmbeddedValkey
from meshwright.gateway.config import ADMIN
from meshwright.gateway.drain import drain
from meshwright.gateway.envoy import command as envoy_command
from meshwright.gateway.limits import generous
from meshwright.gateway.settings import GatewaySettings
from meshwright.registry.settings import HostSettings

HOST = "127.0.0.1"
FACTS = "mesh.json"
REGISTRY_PORT = "registry.port"
"""File in the data folder that says what runs where, while all of it does: how commands find the mesh."""
LOG_LEVELS = "log-levels"
"""File in the data folder that every process reads levels of its log from."""
EDGE_READY_S = 30.0
ORPHAN_S = 15.0
"""How long a store that an earlier mesh left behind may take to end."""
POLL_S = 0.03
DRAIN_S = 3.0
"""What calls in flight get where MESHWRIGHT_DRAIN_S says nothing: whoever stops a mesh of their own waits for it."""
FULL = (errno.ENOSPC, errno.EDQUOT)
PLAIN = {"tls_dir": ""}
"""On loopback nobody proves who they are; one folder would make every process the same role."""


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """What `meshwright dev` was asked for.

    Attributes:
        port: Port of the edge.
        data: Folder of store, logs and sockets.
        docs: Folder that the researcher searches; None: none.
        model: Model spec for all agents.
        agents: `FILE.py:NAME` of a user's own.
        store_port: TCP port of the store beside its socket; 0: none.
        lease_s: How long a task stays with a silent worker.
        bundled: Agents of the library that run.
        workers: Further processes of each of the user's agents, which only work.
        tools: Files of tools, each served by a host of its own; as `tool_files.check` has let them pass.
    """

    port: int
    data: Path
    docs: Path | None
    model: str
    agents: Sequence[str] = ()
    store_port: int = 0
    lease_s: float = 15.0
    bundled: Sequence[str] = BUNDLED
    workers: int = 0
    tools: Sequence[str] = ()


class Mesh:
    """Starts, watches and stops all processes of a plan.

    Args:
        plan: What is wanted.
        ready_file: Says what runs where, while all of it does; None: no such file.
        tell: Takes a line for people whenever a process ends or runs again, or a model fails.
    """

    def __init__(self, plan: MeshPlan, ready_file: Path | None, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self._tell = tell
        self.children: dict[str, Child] = {}
        self._ready_files = [plan.data / FACTS, *([ready_file] if ready_file else [])]
        self._taken: set[int] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._model_failures = ModelFailures((), tell)
        self._locks = contextlib.ExitStack()
        self._store_url = ""
        self._is_ready = False
        self.internal_port = 0
        chosen = Settings.load()
        self._drain_s = chosen.drain_s if "drain_s" in chosen.model_fields_set else DRAIN_S

    @property
    def edge_url(self) -> str:
        """Where the edge answers."""
        return f"http://{HOST}:{self.plan.port}"

    async def start(self) -> None:
        """Starts everything and returns once the edge serves every agent.

        Raises:
            SetupError: Something is in the way; nothing is left running.
        """
        self._check()
        try:
            await self._start_store()
            registry = self._registry()
            registry_target = f"{HOST}:{registry.environment['MESHWRIGHT_PORT']}"
            gateway = self._gateway(registry_target)
            agents = [self._agent(spec, registry_target) for spec in self._specs()]
            workers = [self._agent(spec, registry_target, role="worker") for spec in self._worker_specs()]
            hosts = [self._tool_host(file, registry_target) for file in tool_files.named(self.plan.tools)]
            self._model_failures = ModelFailures({child.log for child in (*agents, *workers)}, self._tell)
            async with asyncio.TaskGroup() as group:
                for child in (registry, gateway, *hosts, *agents, *workers):
                    group.create_task(child.start())
            self._name_agents(agents)
            await self._start_envoy()
            await self._wait_until_served([child.name for child in agents])
            self._is_ready = True
            self._write_ready_files()
        except BaseExceptionGroup as failures:
            first = SetupError(full(self.plan.data)) if self._is_full() else failures.exceptions[0]
            await self.stop()
            raise first from None
        except BaseException:
            await self.stop()
            raise
        for child in self.children.values():
            self._keepers.append(asyncio.create_task(child.keep(self._changed)))
        self._keepers.append(asyncio.create_task(self._model_failures.watch()))

    def _check(self) -> None:
        """Refuses at once what would fail later."""
        for spec in self.plan.agents:
            if not all(spec.rpartition(":")[::2]):
                raise SetupError(f"--agent {spec} names no agent: write FILE.py:NAME, the variable that holds it")
        if self.plan.docs is not None and not (
            self.plan.docs.is_dir() and os.access(self.plan.docs, os.R_OK | os.X_OK)
        ):
            raise SetupError(
                f"the documents folder {self.plan.docs} is no folder that can be read: choose one with --docs"
            )
        for file in self._ready_files[1:]:
            ready_file.check(file)
        self._lock()
        try:
            self._check_ports()
        except SetupError:
            self._locks.close()
            raise

    def _check_ports(self) -> None:
        for option, port in (("--port", self.plan.port), ("--store-port", self.plan.store_port)):
            if port and not ports.is_free(HOST, port):
                raise SetupError(f"port {port} is in use: choose another one with {option}, or stop what listens there")
        if self.plan.port == self.plan.store_port:
            raise SetupError(f"port {self.plan.port} is the edge's: choose another one with --store-port")

    def _lock(self) -> None:
        data = self.plan.data
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            (data / "logs").mkdir(exist_ok=True, mode=0o700)
            lock = self._locks.enter_context((data / "lock").open("a+"))
        except OSError as error:
            raise unusable(data, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            self._locks.close()
            message = f"the data folder {data} is in use by the mesh with pid {holder}: stop it, or choose another"
            raise SetupError(f"{message} with --data") from None
        try:
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())  # past the buffer, which would try again on closing
        except OSError as error:
            self._locks.close()
            raise unusable(data, error) from None

    def _child(self, name: str, command: list[str], environment: dict[str, str], *, speaks: bool = True) -> Child:
        child = Child(name, command, environment, self.plan.data, self.plan.data / "logs" / f"{name}.log", speaks)
        child.stop_s += 2 * max(0.0, self._drain_s - DRAIN_S)  # an agent drains its tasks, then its calls
        self.children[name] = child
        return child

    def _registry_port(self) -> int:
        """Returns the registry's port: that of last time where it is free, for tool hosts of yours come back to it."""
        note = self.plan.data / REGISTRY_PORT
        try:
            wish = int(note.read_text())
        except (OSError, ValueError):
            wish = 0
        port = ports.reserve(HOST, self._taken, wish)
        with contextlib.suppress(OSError):  # then they do not
            note.write_text(str(port))
        return port

    def _environment(self, settings: Settings, port: int = 0) -> dict[str, str]:
        port = port or ports.reserve(HOST, self._taken)
        levels = settings.log_levels_file or str(self.plan.data / LOG_LEVELS)
        chosen = settings.model_copy(
            update={"store_url": self._store_url, "port": port, "log_levels_file": levels} | PLAIN
        )
        return child_environment(chosen) | {"PYTHONUNBUFFERED": "1"}

    def _registry(self) -> Child:
        settings = Settings.load(reflection=True, drain_s=self._drain_s, store_url="", metrics_port=None)
        environment = self._environment(settings, self._registry_port())
        return self._child("registry", [sys.executable, "-m", "meshwright.registry"], environment)

    def _gateway(self, registry_target: str) -> Child:
        self.internal_port = ports.reserve(HOST, self._taken)
        settings = generous(
            GatewaySettings.load(
                registry=registry_target,
                edge_host=HOST,
                edge_port=self.plan.port,
                internal_port=self.internal_port,
                folder=str(self.plan.data / "envoy"),
                edge_tls_dir="",
                drain_s=self._drain_s,
                reflection=True,
            )
        )
        return self._child("gateway", [sys.executable, "-m", "meshwright.gateway"], self._environment(settings))

    def _specs(self) -> list[AgentSpec]:
        return [AgentSpec(name, spec_of(name), name) for name in self.plan.bundled] + own_agents([*self.plan.agents])

    def _worker_specs(self) -> list[AgentSpec]:
        numbers = range(1, self.plan.workers + 1)
        return [worker_of(agent, number) for agent in own_agents([*self.plan.agents]) for number in numbers]

    def _agent(self, named: AgentSpec, registry_target: str, *, role: str | None = None) -> Child:
        settings = AgentSettings.load(
            registry=registry_target,
            model=self.plan.model or None,
            docs=str(self.plan.docs.resolve()) if self.plan.docs else "",
            lease_s=self.plan.lease_s,
            role=role,
            drain_s=self._drain_s,
            reflection=True,
        )
        command = [sys.executable, "-m", "meshwright.agents", named.spec]
        child = self._child(named.name, command, self._environment(settings))
        child.log = child.log.with_name(f"{named.log}.log")
        child.folder = Path.cwd()
        return child

    def _tool_host(self, named: tuple[str, str], registry_target: str) -> Child:
        name, file = named
        settings = HostSettings.load(registry=registry_target, drain_s=self._drain_s, reflection=True)
        command = [sys.executable, "-m", "meshwright.registry.tool", file]
        child = self._child(name, command, self._environment(settings))
        child.folder = Path.cwd()
        return child

    def _name_agents(self, agents: list[Child]) -> None:
        """Gives a user's agents the names that they told; two of one name would share their tasks."""
        for child in agents:
            name = str(child.facts["agent"])
            if name != child.name:
                if name in self.children:
                    raise SetupError(f"two agents are called {name}: give yours another name")
                self.children[name] = self.children.pop(child.name)
                child.name = name

    async def _start_store(self) -> None:
        await end_orphan(EmbeddedValkey.former(self.plan.data))  # with its own password, before there is a new one
        valkey = EmbeddedValkey.prepare(self.plan.data, port=self.plan.store_port)
        self._store_url = valkey.url
        store = self._child("store", list(valkey.command), child_environment(Settings.load()), speaks=False)
        store.answers = lambda: listens(valkey.socket)
        client = Store(valkey.url)
        try:
            await store.start()
            await client.open()
        except SetupError as error:
            if self._is_full():  # it may end while it is opened
                raise SetupError(full(self.plan.data)) from None
            raise SetupError(f"{error.message}; see {store.log}") from None
        finally:
            await client.close()

    def _is_full(self) -> bool:
        """Whether the store says that it ended because its disk is full."""
        said = self.children["store"].last_words()
        return DISK in said or os.strerror(errno.ENOSPC) in said

    async def _start_envoy(self) -> None:
        envoy = self._child("envoy", envoy_command(), child_environment(Settings.load()), speaks=False)
        envoy.folder = self.plan.data / "envoy"
        envoy.answers = lambda: is_live(self.plan.data / "envoy" / ADMIN)
        await envoy.start()

    async def _wait_until_served(self, agents: list[str]) -> None:
        edge = Edge(self.edge_url)
        envoy = self.children["envoy"]
        waiting = list(agents)
        try:
            async with asyncio.timeout(EDGE_READY_S):
                while waiting:
                    if not envoy.pid:
                        raise SetupError(f"Envoy ended at once: see {envoy.log}")
                    try:
                        await edge.health(waiting[0])
                        waiting.pop(0)
                    except CredentialsMissingError:  # it asks who is calling, before it looks for the agent
                        waiting.pop(0)
                    except MeshError:
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise SetupError(f"the edge does not serve {waiting[0]}: see {self.plan.data / 'logs'}") from None
        finally:
            await edge.close()

    async def _stop_envoy(self) -> None:
        """Lets open calls end, which agents that stop bring about, before it is told to."""
        if "envoy" in self.children:
            with contextlib.suppress(UnavailableError):  # then there is nothing to wait for
                await drain(self.plan.data / "envoy", self._drain_s)
            await self.children["envoy"].stop()

    def facts(self) -> dict[str, object]:
        """Returns what the ready file says."""
        hosts = dict(tool_files.named(self.plan.tools))
        others = {"store", "registry", "gateway", "envoy", *hosts}
        agents = {name: child for name, child in self.children.items() if name not in others}
        return {
            "edge": self.edge_url,
            "internal": f"http://{HOST}:{self.internal_port}",
            "registry": self.children["registry"].target,
            "store": self._store_url,
            "agents": {name: child.target for name, child in agents.items() if name == child.facts.get("agent", name)},
            "tools": {name: self.children[name].target for name in hosts},
            "pids": {name: child.pid for name, child in self.children.items()},
        }

    def _changed(self, what: str) -> None:
        self._tell(what)
        try:
            self._write_ready_files()
        except OSError as error:
            self._tell(f"{error.filename} cannot be written: {error.strerror}")

    def _write_ready_files(self) -> None:
        for file in self._ready_files if self._is_ready else ():
            ready_file.write(file, self.facts())

    async def stop(self) -> None:
        """Stops everything: the edge first, the store last."""
        self._is_ready = False
        for file in self._ready_files:
            file.unlink(missing_ok=True)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        last = ("gateway", "registry", "store")
        first = [child for name, child in self.children.items() if name not in (*last, "envoy")]
        await asyncio.gather(self._stop_envoy(), *(child.stop() for child in first))
        for name in last:
            if name in self.children:
                await self.children[name].stop()
        self._model_failures.look()
        self._locks.close()


def unusable(data: Path, error: OSError) -> SetupError:
    """Says why a data folder cannot be used."""
    if error.errno in FULL:
        return SetupError(full(data))
    return SetupError(f"the data folder {data} cannot be used: {error.strerror}")


def full(data: Path) -> str:
    """Says what to do where a data folder's disk is full."""
    return f"the disk of {data} is full: free some of it, or choose another folder with --data"


async def end_orphan(valkey: EmbeddedValkey | None) -> None:
    """Ends a store that outlived the mesh that started it: the lock says that nobody else uses the folder.

    Args:
        valkey: What the data folder was last prepared for.

    Raises:
        SetupError: It goes on; a second store on the same files would ruin them.
    """
    if valkey is None or not await listens(valkey.socket):
        return
    import redis.asyncio as redis

    client = redis.Redis.from_url(valkey.url, socket_timeout=5)
    try:
        async with asyncio.timeout(ORPHAN_S):
            while await listens(valkey.socket):
                with contextlib.suppress(redis.RedisError, OSError):
                    await client.shutdown()
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise SetupError(
            f"a store of an earlier mesh does not end: stop the process that listens on {valkey.socket}"
        ) from None
    finally:
        await client.aclose()


async def listens(socket: Path) -> bool:
    """Tells whether a process listens on a socket; whether it would talk to us is another question."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:  # its queue is full, or it was just closed
        return True
    writer.close()
    return True


async def is_live(socket: Path) -> bool:
    """Asks Envoy, at its admin socket, whether it serves."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"GET /ready HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
