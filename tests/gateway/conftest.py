"""An edge that asks who is calling: real store, registry, agent, gateway and Envoy."""

import asyncio
import contextlib
import http.client
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.core.api_key import ApiKeys
from meshwright.core.channel import dial
from meshwright.gateway import envoy
from meshwright.gateway.serving import GatewayProcess
from meshwright.gateway.settings import GatewaySettings
from tests.answer import Answer
from tests.conftest import Mesh
from tests.ports import free_ports

START_S = 20.0


class Edge:
    """A mesh behind an edge."""

    def __init__(
        self, mesh: Mesh, gateway: GatewayProcess, port: int, keys: ApiKeys, channel: grpc.aio.Channel
    ) -> None:
        self.mesh = mesh
        self.gateway = gateway
        self.port = port
        self.keys = keys
        self.channel = channel

    async def key(self, *scopes: str, tenant: str = "acme", principal: str = "ann", **chosen: Any) -> str:
        return (await self.keys.create("test", scopes, tenant=tenant, principal=principal, **chosen))[0]

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await asyncio.to_thread(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent |= {"content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


@contextlib.asynccontextmanager
async def running_edge(store: Any, folder: Path, **chosen: Any) -> AsyncIterator[Edge]:
    """Runs a mesh with one agent, `clerk`, behind an edge."""
    port, internal = free_ports(2)
    async with contextlib.AsyncExitStack() as stack:
        mesh = Mesh(store.url, folder, auth=chosen["auth"])
        await mesh.open()
        stack.push_async_callback(mesh.close)
        await mesh.agent(Agent("clerk", "You answer."), model="offline")
        settings = GatewaySettings(
            store_url=store.url,
            registry=mesh.target,
            port=0,
            edge_port=port,
            internal_port=internal,
            folder=str(folder / "envoy"),
            default_agent="clerk",
            drain_s=0,
            tracing=False,
            **chosen,
        )
        gateway = GatewayProcess(settings)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        log = stack.enter_context((folder / "envoy.log").open("wb"))
        process = subprocess.Popen(envoy.command(), cwd=folder / "envoy", stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        channel = await stack.enter_async_context(dial(f"127.0.0.1:{port}"))
        edge = Edge(mesh, gateway, port, ApiKeys(store), channel)
        async with asyncio.timeout(START_S):
            while not await served(edge):
                await asyncio.sleep(0.05)
        yield edge


async def served(edge: Edge) -> bool:
    """Whether the edge is up, and knows the agent."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return (await edge.ask("GET", "/ready")).status == 200
    return False


@pytest.fixture
async def edge(store: Any, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge that takes API keys."""
    async with running_edge(store, tmp_path, auth="keys") as running:
        yield running
