"""A registry and tool hosts of this process, each on a free port, on a real store."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from meshwright.core import channel
from meshwright.core.channel import Channels, dial
from meshwright.core.grant import Verifier
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.core.store import Store
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
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
    async with dial(target) as connection:
        yield Registry(
            process,
            target,
            connection,
            RegistryClient(channels, target),
            ToolRegistryServiceStub(connection),
            AgentDirectoryServiceStub(connection),
        )
    await channels.close()
    await process.stop()


def contract_of(name: str = "docs.search", version: str = "1.0.0", **changes: Any) -> pb.Tool:
    """Makes a contract; `properties`: of its arguments, and no others are taken."""
    properties = changes.pop("properties", {})
    fields = {"description": "Searches.", "endpoint": "127.0.0.1:7", "name": name, "version": version} | changes
    made = pb.Tool(**fields)
    made.input_schema.update(
        {"type": "object"} | ({"properties": properties, "additionalProperties": False} if properties else {})
    )
    return made


@pytest.fixture
def contract() -> Callable[..., pb.Tool]:
    """Makes contracts: `contract("docs.search", "1.0.0", effect=...)`."""
    return contract_of


@pytest.fixture
def ask(registry: Registry) -> Callable[..., Any]:
    """Calls a method of the tool registry with a request's fields."""

    async def call(method: str, **fields: Any) -> Any:
        request_type = getattr(pb, f"{method}Request")
        return await channel.unary(getattr(registry.tools, method), request_type(**fields), timeout_s=10)

    return call


@pytest.fixture
def register(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Registers a contract and returns it as it is stored: `await register(version="1.1.0")`."""

    async def stored(made: pb.Tool | None = None, *, validate_only: bool = False, **changes: Any) -> pb.Tool:
        answer = await ask("RegisterTool", tool=made or contract_of(**changes), validate_only=validate_only)
        tool: pb.Tool = answer.tool
        return tool

    return stored


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
            connection = await stack.enter_async_context(dial(target))
            return Hosting(host, target, ToolServiceStub(connection))

        yield start
