"""Real parts for tests: a Valkey, a registry and agents of this process, each on a free port."""

import asyncio
import base64
import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from meshwright.agents.agent import Agent
from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.agents.serving import AgentProcess
from meshwright.agents.settings import AgentSettings
from meshwright.core.api_key import LIBRARY as KEY_LIBRARY
from meshwright.core.codec import Codec, ContentKeys
from meshwright.core.settings import Auth, Settings
from meshwright.core.store import Store
from meshwright.core.valkey import EmbeddedValkey
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY

hypothesis.settings.register_profile("meshwright", deadline=None)  # a machine that others use too has no even pace
hypothesis.settings.load_profile("meshwright")
# services of this process log beside what commands print in it
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))

KEY = hashlib.sha256(b"the key of tests").digest()
WITH_CODEC = bool(os.environ.get("TEST_CODEC"))
"""`TEST_CODEC=1 pytest tests/agents`: the same tests, with content encrypted in the store."""


def codec() -> Codec:
    """The codec of a run by hand, or one that leaves content as it is."""
    return Codec(ContentKeys({"test": KEY}) if WITH_CODEC else None)


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one key, `test`."""
    path = tmp_path_factory.mktemp("keys") / "content.keys"
    path.write_text(f"test {base64.b64encode(KEY).decode()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def _content_keys(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands the keys to every process of a run by hand."""
    if WITH_CODEC:
        monkeypatch.setenv("MESHWRIGHT_CONTENT_KEYS_FILE", str(keys_file))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """One real Valkey for all tests."""
    embedded = EmbeddedValkey.prepare(tmp_path_factory.mktemp("valkey"))
    with subprocess.Popen(embedded.command, stdout=subprocess.DEVNULL) as process:
        yield embedded
        process.terminate()


@pytest.fixture
async def store(valkey: EmbeddedValkey) -> AsyncIterator[Store]:
    """An open and empty store."""
    opened = Store(valkey.url, JOURNAL_LIBRARY, REGISTRY_LIBRARY, KEY_LIBRARY, codec=codec())
    empty = Store(valkey.url)  # whatever keys the one before was written with
    await empty.open()
    await empty.client.flushall()
    await empty.close()
    await opened.open()
    yield opened
    await opened.close()


class OwnValkey:
    """A Valkey of one test: started, killed, started again."""

    def __init__(self, embedded: EmbeddedValkey) -> None:
        self.embedded = embedded
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.embedded.url

    def start(self) -> None:
        self.process = subprocess.Popen(self.embedded.command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()


@pytest.fixture
def run_valkey() -> Iterator[Callable[..., OwnValkey]]:
    """Starts a Valkey that a test may break: `run_valkey(folder, port=...)`."""
    started: list[OwnValkey] = []

    def run(folder: Path, *, port: int = 0) -> OwnValkey:
        own = OwnValkey(EmbeddedValkey.prepare(folder, port=port))
        own.start()
        started.append(own)
        return own

    yield run
    for own in started:
        own.kill()


class Mesh:
    """A registry and agents, in this process, with real servers between them."""

    def __init__(self, url: str, folder: Path, partitions: int = 1, auth: Auth = "none", keys_file: str = "") -> None:
        self.url = url
        self.auth: Auth = auth
        self.keys_file = keys_file
        self.folder = folder
        self.partitions = partitions
        self.target = ""
        self.agents: dict[str, AgentProcess] = {}
        self._stopped: list[AgentProcess] = []
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        settings = Settings(store_url=self.url, drain_s=0, partitions=self.partitions, auth=self.auth)
        self.registry = RegistryProcess(settings)
        self.target = await self.registry.start()
        self._stack.push_async_callback(self.registry.stop)

    async def agent(self, agent: Agent, *, script: str = "", **settings: Any) -> AgentProcess:
        """Starts an agent; `script`: YAML of a scripted model."""
        if script:
            file = self.folder / f"{agent.name}.yaml"
            file.write_text(script)
            settings["model"] = f"scripted:{file}"
        chosen = {"store_url": self.url, "registry": self.target, "drain_s": 0, "tracing": False, "auth": self.auth}
        chosen |= {"partitions": self.partitions, "content_keys_file": self.keys_file} | settings
        process = AgentProcess(agent, AgentSettings(**chosen))
        self._stack.push_async_callback(self.stop, process)
        await process.start()
        self.agents[agent.name] = process
        async with asyncio.timeout(5):
            while any(agent.name not in other.registry.known for other in self.agents.values()):
                await asyncio.sleep(0.01)
        return process

    async def stop(self, process: AgentProcess) -> None:
        """Drains and stops an agent; all of them are stopped at the end anyway."""
        if process not in self._stopped:
            self._stopped.append(process)
            await process.stop()

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def mesh(store: Store, tmp_path: Path, keys_file: Path) -> AsyncIterator[Mesh]:
    """A mesh with a registry and no agents yet."""
    opened = Mesh(store.url, tmp_path, store.partitions, keys_file=str(keys_file) if WITH_CODEC else "")
    await opened.open()
    yield opened
    await opened.close()
