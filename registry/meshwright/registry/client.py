"""The registry as other services see it: announce, find, resolve, verify."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog

from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import AbortedError, MeshError, UnavailableError
from meshwright.core.recurring import Recurring
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as directory_pb2
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    RegisterToolRequest,
    ResolveToolsRequest,
    ResolveToolsResponse,
    Tool,
    WatchToolsRequest,
    WatchToolsResponse,
)
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub

log = structlog.get_logger("registry_client")
TIMEOUT_S = 5.0
LEASE_S = 15.0
BEAT_S = 4.0
RETRY_S = 0.5
KEY_KEPT_S = 60.0


class RegistryClient:
    """One service's view of the registry.

    Args:
        channels: Where connections are kept.
        target: host:port of the registry.
        is_open: Whether the process that registers and announces takes calls of anybody.
    """

    def __init__(self, channels: Channels, target: str, *, is_open: bool = False) -> None:
        self._target = target
        self._is_open = is_open
        self._tools = ToolRegistryServiceStub(channels.to(target))
        self._agents = AgentDirectoryServiceStub(channels.to(target))
        self._keys: dict[str, tuple[float, IssuerKey]] = {}
        self.known: dict[str, directory_pb2.AgentCard] = {}
        self._is_watching = asyncio.Event()

    async def wait_until_there(self, patience_s: float) -> None:
        """Waits for the registry to answer.

        Raises:
            UnavailableError: It did not.
        """
        ends = time.monotonic() + patience_s
        while True:
            try:
                await self.list_agents()
            except MeshError as error:
                if time.monotonic() > ends:
                    message = f"the registry at {self._target} does not answer: {error.message}"
                    raise UnavailableError(message, retry_after_s=1) from None
                await asyncio.sleep(RETRY_S / 5)
            else:
                return

    async def list_agents(self) -> list[directory_pb2.AgentCard]:
        """Returns the first page of agents."""
        request = directory_pb2.ListAgentsRequest(page_size=200)
        return list((await channel.patient(self._agents.ListAgents, request, timeout_s=TIMEOUT_S)).agents)

    async def register(self, tool: Tool) -> Tool:
        """Registers a tool's version; repeating it is harmless."""
        request = RegisterToolRequest(tool=tool, open=self._is_open)
        registered: Tool = (await channel.patient(self._tools.RegisterTool, request, timeout_s=TIMEOUT_S)).tool
        return registered

    async def resolve(self, selectors: Sequence[str]) -> list[Tool]:
        """Pins tools, all or nothing, in the selectors' order."""
        return list((await self.resolution(selectors)).tools) if selectors else []

    async def resolution(self, selectors: Sequence[str]) -> ResolveToolsResponse:
        """Pins tools as `resolve` does; says at which revision of the catalog, also where none is selected."""
        request = ResolveToolsRequest(selectors=selectors)
        found: ResolveToolsResponse = await channel.patient(self._tools.ResolveTools, request, timeout_s=TIMEOUT_S)
        return found

    async def watch_tools(self, revision: int) -> AsyncGenerator[WatchToolsResponse, None]:
        """Yields what changes in the catalog after a revision; survives a registry that goes away and comes back.

        Raises:
            AbortedError: Changes were missed: resolve anew, and watch from the revision of that.
        """
        failing = Recurring()
        while True:
            request = WatchToolsRequest(after_revision=revision)
            try:
                async with contextlib.aclosing(
                    channel.stream(self._tools.WatchTools, request, timeout_s=None)
                ) as changes:
                    async for change in changes:
                        yield change
                        revision = change.revision or revision
            except AbortedError:
                raise
            except MeshError as error:
                if channel.is_routine(error):
                    log.debug("watches_anew")
                elif failing.is_news():
                    log.warning("tools_watch_broke", error=error.message)
            await asyncio.sleep(RETRY_S)

    async def key(self, key_id: str) -> IssuerKey:
        """Returns an instance's verification key.

        Raises:
            KeyNotFoundError: No such instance is here.
        """
        kept = self._keys.get(key_id)
        if kept and time.monotonic() - kept[0] < KEY_KEPT_S:
            return kept[1]
        request = directory_pb2.GetKeyRequest(key_id=key_id)
        reply = await channel.patient(self._agents.GetKey, request, timeout_s=TIMEOUT_S)
        key = IssuerKey(
            reply.public_key, reply.agent_id, frozenset(reply.tools), frozenset(reply.delegates), reply.edge
        )
        self._keys[key_id] = (time.monotonic(), key)
        return key

    async def announce(self, card: directory_pb2.AgentCard, endpoint: directory_pb2.Endpoint) -> None:
        """Announces an instance once."""
        request = directory_pb2.AnnounceAgentRequest(agent=card, endpoint=endpoint, open=self._is_open)
        request.lease.FromMilliseconds(int(LEASE_S * 1000))
        await channel.patient(self._agents.AnnounceAgent, request, timeout_s=TIMEOUT_S)

    async def keep_announced(self, card: directory_pb2.AgentCard, endpoint: directory_pb2.Endpoint) -> None:
        """Renews the lease until cancelled; a registry that is away is asked again soon."""
        failing = Recurring()
        pause_s = BEAT_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.announce(card, endpoint)
            except MeshError as error:
                pause_s = RETRY_S
                if failing.is_news():
                    log.warning("announce_failed", error=error.message)
            else:
                pause_s = BEAT_S
                if failing.is_over():
                    log.info("announced_again", agent=card.agent_id)

    async def withdraw(self, agent_id: str, instance_id: str) -> None:
        """Removes an instance; a registry that is away lets its lease run out."""
        request = directory_pb2.WithdrawAgentRequest(agent_id=agent_id, instance_id=instance_id)
        with contextlib.suppress(MeshError):
            await channel.patient(self._agents.WithdrawAgent, request, timeout_s=TIMEOUT_S)

    async def watch(self) -> AsyncIterator[dict[str, directory_pb2.AgentCard]]:
        """Yields all agents by id, anew after every change; survives a registry that goes away and comes back."""
        failing = Recurring()
        while True:
            known: dict[str, directory_pb2.AgentCard] = {}
            try:
                request = directory_pb2.WatchAgentsRequest()
                for card in await self.list_agents():
                    known[card.agent_id] = card
                if failing.is_over():
                    log.info("watches_again", agents=sorted(known))
                yield dict(known)
                async for change in channel.stream(self._agents.WatchAgents, request, timeout_s=None):
                    if change.removed:
                        known.pop(change.agent.agent_id, None)
                    else:
                        known[change.agent.agent_id] = change.agent
                    yield dict(known)
            except MeshError as error:
                if channel.is_routine(error):
                    log.debug("watches_anew")
                elif failing.is_news():
                    log.warning("watch_broke", error=error.message)
            await asyncio.sleep(RETRY_S)

    async def keep_known(self) -> None:
        """Keeps `known` true until cancelled."""
        async for agents in self.watch():
            self.known = agents
            self._is_watching.set()

    async def find(self, agent_id: str) -> directory_pb2.AgentCard | None:
        """Returns an agent's card, or None where nobody by that name is here.

        Raises:
            UnavailableError: The registry did not answer yet.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._is_watching.wait()
        except TimeoutError:
            raise UnavailableError("the registry does not answer", retry_after_s=1) from None
        return self.known.get(agent_id)
