"""A registry and tool hosts of this process, each on a free port, on a real store."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from meshwright.core.channel import Channels, dial
from meshwright.core.grant import Verifier
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.core.store import Store
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub, add_ToolServiceServicer_to_server
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.store import Ledger
from meshwright.registry.tool import LocalTool
from meshwright.registry.tool_service import ToolService


@dataclass
class Registry:
    """A running registry, its stubs, and a client as services have one."""

    process: RegistryProcess
    target: str
    channel: grpc.aio.Channel
    client: RegistryClient
    tools: Any
    agents: Any


@pytest.fixture
async def registry(store: Store) -> AsyncIterator[Registry]:
    process = RegistryProcess(Settings(store_url=store.url, drain_s=0, tracing=False))
    target = await process.start()
    channels = Channels()
    async with dial(target) as channel:
        yield Registry(
            process,
            target,
            channel,
            RegistryClient(channels, target),
            ToolRegistryServiceStub(channel),
            AgentDirectoryServiceStub(channel),
        )
    await channels.close()
    await process.stop()


@dataclass
class Hosting:
    """A tool host's server and a client of it."""

    host: ToolHost
    target: str
    tools: Any


@pytest.fixture
async def hosting(registry: Registry, store: Store) -> AsyncIterator[Callable[..., Any]]:
    """Serves tools and registers them: `await hosting(add, search)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*tools: LocalTool) -> Hosting:
            host = ToolHost(tools, Ledger(store))
            services = {"tools.v1.ToolService": bound(add_ToolServiceServicer_to_server, ToolService(host))}
            settings = Settings(drain_s=0, tracing=False)
            server = Server(settings, services, Verifier(registry.client.key))
            target = await server.start()
            stack.push_async_callback(server.stop)
            for tool in tools:
                await registry.client.register(tool.contract(target))
            channel = await stack.enter_async_context(dial(target))
            return Hosting(host, target, ToolServiceStub(channel))

        yield start
