"""Processes of agents beside a mesh of the test: asked, watched, and killed."""

import asyncio
import contextlib
import http.client
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from meshwright.agents.settings import AgentSettings
from meshwright.cli import ports
from meshwright.core.settings import child_environment
from tests.agents.conftest import Client


@dataclass
class Worker:
    """A process of an agent.

    Attributes:
        process: To be killed.
        target: host:port of its services.
        metrics_port: Of its Prometheus listener.
        channel: To it.
        client: Its agent and its tasks.
    """

    process: asyncio.subprocess.Process
    target: str
    metrics_port: int
    channel: grpc.aio.Channel = field(init=False)
    client: Client = field(init=False)

    async def kill(self) -> None:
        """Ends it as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def metric(self, series: str) -> float:
        """Reads a series of its metrics, as Prometheus spells it; 0: there is none yet."""
        text = await asyncio.to_thread(self._metrics)
        found = [line.removeprefix(f"{series} ") for line in text.splitlines() if line.startswith(f"{series} ")]
        return float(found[0]) if found else 0.0

    def _metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()


class Workers:
    """Starts processes of agents in a mesh, and ends those that are left.

    Args:
        store_url: Of the mesh.
        registry: Of the mesh.
    """

    def __init__(self, store_url: str, registry: str) -> None:
        self._facts = {"store_url": store_url, "registry": registry, "drain_s": 0, "tracing": False}
        self._facts |= {"log_level": "error", "lease_s": 1}
        self._started: list[Worker] = []
        self._channels: list[grpc.aio.Channel] = []

    async def start(self, file: Path, agent: str = "agent", **settings: Any) -> Worker:
        """Starts a process of an agent and waits until it works."""
        port = ports.reserve("127.0.0.1", set())
        chosen = AgentSettings(**(self._facts | {"metrics_port": port} | settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshwright.agents", f"{file}:{agent}"),
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(chosen),
        )
        worker = Worker(process, "", port)
        self._started.append(worker)  # before anything can break this off: it has to be ended
        assert process.stdout
        worker.target = json.loads(await process.stdout.readline())["target"]
        worker.channel = grpc.aio.insecure_channel(worker.target)
        self._channels.append(worker.channel)
        worker.client = Client(worker.channel)
        return worker

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for worker in self._started:
            await worker.kill()
