"""Composition of a tool host's own process."""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence

import structlog

from meshwright.core import telemetry, tracing
from meshwright.core.channel import Channels
from meshwright.core.codec import Codec
from meshwright.core.errors import MeshError
from meshwright.core.grant import Verifier
from meshwright.core.process import Process, ended
from meshwright.core.recurring import Recurring
from meshwright.core.role import Role
from meshwright.core.server import Server, bound
from meshwright.core.store import Store
from meshwright.core.tls import check_bearer
from meshwright.gen.tools.v1.tool_service_pb2_grpc import add_ToolServiceServicer_to_server
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import LIBRARY, Ledger
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.tool_service import ToolService

log = structlog.get_logger("tool_host")
REGISTRY_PATIENCE_S = 30.0
REPEAT_S = 15.0


async def serve(tools: Sequence[HostedTool], settings: HostSettings, running: Process) -> None:
    """Registers and serves tools until the process is told to stop."""
    check_bearer(settings.tls_dir, Role.TOOL, Role.AGENT)  # agents serve tools as well
    telemetry.configure(settings, "tool-host", f"tool-host-{secrets.token_hex(4)}")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tracing.flush)
        store = Store(settings.store_url, LIBRARY, codec=Codec.of(settings.content_keys_file))
        stack.push_async_callback(store.close)
        await store.open(settings.partitions)
        channels = Channels(settings.tls_dir)
        stack.push_async_callback(channels.close)
        registry = RegistryClient(channels, settings.registry, is_open=settings.auth == "none")
        host = ToolHost(tools, Ledger(store), settings)
        services = {"tools.v1.ToolService": bound(add_ToolServiceServicer_to_server, ToolService(host))}
        server = Server(settings, services, Verifier(registry.key))
        stack.push_async_callback(server.stop)
        target = await server.start()
        log.info("waits_for_registry", target=settings.registry, up_to_s=REGISTRY_PATIENCE_S)
        await registry.wait_until_there(REGISTRY_PATIENCE_S)
        for tool in tools:
            await registry.register(tool.contract(target))
        log.info("ready", target=target)
        running.ready(target=target)
        keeping = asyncio.create_task(keep_registered(registry, tools, target))
        await running.stopping.wait()
        log.info("draining", up_to_s=settings.drain_s)
        await ended(keeping)
    log.info("ended")


async def keep_registered(registry: RegistryClient, tools: Sequence[HostedTool], target: str) -> None:
    """Repeats the registration, so that a store that was emptied learns of the tools again."""
    failing = Recurring()
    while True:
        await asyncio.sleep(REPEAT_S)
        try:
            for tool in tools:
                await registry.register(tool.contract(target))
        except MeshError as error:
            if failing.is_news():
                log.warning("register_failed", error=error.message)
        else:
            if failing.is_over():
                log.info("registered_again")
