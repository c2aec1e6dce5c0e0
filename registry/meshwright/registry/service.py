"""ToolRegistryService and AgentDirectoryService: protobuf to domain objects and back."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator

import structlog

from meshwright.core import channel
from meshwright.core.canonical import from_struct, to_value
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AbortedError,
    AgentNotFoundError,
    InvalidRequestError,
    KeyNotFoundError,
    MeshError,
    NotYetAvailableError,
    ToolConflictError,
    ToolFailedError,
    ToolNotFoundError,
    UnavailableError,
)
from meshwright.core.grant import IssuerKey, Signer
from meshwright.core.ids import AGENT_ID, CALLER_ID, TOOL_NAME, checked
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as directory_pb2
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as registry_pb2
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceServicer
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceServicer
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest, Outcome
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from meshwright.registry.catalog import checked_contract, choose, precedence, split_selector
from meshwright.registry.directory import cards, checked_announcement, stored_announcement
from meshwright.registry.store import CatalogStore, DirectoryStore

log = structlog.get_logger("registry")
MAX_PAGE = 200
DEFAULT_PAGE = 50
MAX_SELECTORS = 256
WATCH_POLL_S = 0.05
"""How often a watch looks for changes: the delay a new agent waits before it is routed to."""
SWEEP_S = 1.0
RECENT_CHANGES = 100


def paged(page_size: int) -> int:
    """Returns the page size that a request means.

    Raises:
        InvalidRequestError: It is out of range.
    """
    if not 0 <= page_size <= MAX_PAGE:
        raise InvalidRequestError("page_size out of range", fields={"page_size": f"1..{MAX_PAGE}; 0: {DEFAULT_PAGE}"})
    return page_size or DEFAULT_PAGE


class AgentDirectory(AgentDirectoryServiceServicer):
    """Who is here: instances under leases, kept in the store."""

    def __init__(self, store: DirectoryStore, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._revision = 0
        self._starts = 0
        self._moved = asyncio.Condition()

    async def follow(self) -> None:
        """Looks for changes on behalf of all watches, for as long as the service runs."""
        while True:
            with contextlib.suppress(MeshError):
                revision = await self._store.revision()
                if revision != self._revision:
                    async with self._moved:
                        self._starts += revision < self._revision  # another store, or an emptied one
                        self._revision = revision
                        self._moved.notify_all()
            await asyncio.sleep(WATCH_POLL_S)

    async def end_watches(self) -> None:
        """Ends all watches, so that a server that stops need not wait for them; watchers come back by themselves."""
        async with self._moved:
            self._starts += 1
            self._moved.notify_all()

    async def _moves(self, revision: int, start: int) -> list[tuple[int, str]]:
        """Waits for changes after a revision.

        Raises:
            AbortedError: What came after it is not known any more: watch anew.
        """
        async with self._moved:
            await self._moved.wait_for(lambda: self._revision > revision or self._starts != start)
        changes = await self._store.changes(revision)
        if self._starts != start or not changes or changes[0][0] != revision + 1:
            raise AbortedError("changes were missed: list the agents and watch from now on")
        return changes

    async def sweep(self) -> None:
        """Removes silent instances, for as long as the service runs."""
        while True:
            with contextlib.suppress(MeshError):
                await self._store.expire()
            await asyncio.sleep(SWEEP_S)

    async def AnnounceAgent(
        self, request: directory_pb2.AnnounceAgentRequest, context: Context
    ) -> directory_pb2.AnnounceAgentResponse:
        lease_ms = checked_announcement(request)
        agent_id, instance_id = request.agent.agent_id, request.endpoint.instance_id
        ends = await self._store.announce(agent_id, instance_id, stored_announcement(request), lease_ms)
        response = directory_pb2.AnnounceAgentResponse()
        response.lease_expire_time.FromMilliseconds(ends)
        return response

    async def WithdrawAgent(
        self, request: directory_pb2.WithdrawAgentRequest, context: Context
    ) -> directory_pb2.WithdrawAgentResponse:
        await self._store.withdraw(request.agent_id, request.instance_id)
        return directory_pb2.WithdrawAgentResponse()

    async def GetAgent(self, request: directory_pb2.GetAgentRequest, context: Context) -> directory_pb2.AgentCard:
        checked("agent_id", request.agent_id, AGENT_ID)
        card = (await self._cards()).get(request.agent_id)
        if card is None:
            raise AgentNotFoundError(f"no agent {request.agent_id} is here: `meshwright agent list` shows who is")
        return card

    async def ListAgents(
        self, request: directory_pb2.ListAgentsRequest, context: Context
    ) -> directory_pb2.ListAgentsResponse:
        size = paged(request.page_size)
        known = await self._cards()
        names = sorted(name for name in known if name > request.page_token)
        page = names[:size]
        following = page[-1] if len(names) > size else ""
        return directory_pb2.ListAgentsResponse(agents=[known[name] for name in page], next_page_token=following)

    async def GetKey(self, request: directory_pb2.GetKeyRequest, context: Context) -> directory_pb2.GetKeyResponse:
        issuer = await self.issuer(request.key_id)
        return directory_pb2.GetKeyResponse(
            public_key=issuer.public_key,
            agent_id=issuer.agent_id,
            tools=sorted(issuer.tools),
            delegates=sorted(issuer.delegates),
        )

    async def issuer(self, key_id: str) -> IssuerKey:
        """Returns the key of a living instance, or our own.

        Raises:
            KeyNotFoundError: No such instance is here.
        """
        if key_id == self._signer.key_id:
            return IssuerKey(self._signer.public_key, "", frozenset())
        announcement = await self._store.instance(key_id)
        if announcement is None:
            raise KeyNotFoundError(f"no instance {key_id} is here")
        announced = directory_pb2.AnnounceAgentRequest.FromString(announcement)
        agent = announced.agent
        key = announced.endpoint.public_key
        return IssuerKey(key, agent.agent_id, frozenset(agent.tools), frozenset(agent.delegates))

    async def WatchAgents(
        self, request: directory_pb2.WatchAgentsRequest, context: Context
    ) -> AsyncIterator[directory_pb2.WatchAgentsResponse]:
        start, revision = self._starts, request.after_revision
        if not revision:
            revision = await self._store.revision()
            known = await self._cards()
            for card in known.values():
                yield directory_pb2.WatchAgentsResponse(revision=revision, agent=card)
            # who listed the agents just before this must not keep one that has gone since
            lately = await self._store.changes(max(0, revision - RECENT_CHANGES))
            for name in {name for _, name in lately} - set(known):
                gone_card = directory_pb2.AgentCard(agent_id=name)
                yield directory_pb2.WatchAgentsResponse(revision=revision, agent=gone_card, removed=True)
        while True:
            changes = await self._moves(revision, start)
            known = await self._cards()
            for name in dict.fromkeys(name for _, name in changes):
                gone = name not in known
                card = directory_pb2.AgentCard(agent_id=name) if gone else known[name]
                yield directory_pb2.WatchAgentsResponse(revision=changes[-1][0], agent=card, removed=gone)
            revision = changes[-1][0]

    async def _cards(self) -> dict[str, directory_pb2.AgentCard]:
        return cards(await self._store.instances())


class ToolRegistry(ToolRegistryServiceServicer):
    """Contracts of tools, kept in the store; calls for those who have no mesh client."""

    def __init__(self, store: CatalogStore, signer: Signer, channels: Channels) -> None:
        self._store = store
        self._signer = signer
        self._channels = channels

    async def RegisterTool(
        self, request: registry_pb2.RegisterToolRequest, context: Context
    ) -> registry_pb2.RegisterToolResponse:
        tool = checked_contract(request.tool)
        if request.validate_only:
            (known,) = await self._store.versions([tool.name])
            is_conflict = tool.version in known and with_host(*known[tool.version]).digest != tool.digest
        else:
            endpoint = tool.endpoint
            tool.create_time.FromMilliseconds(int(time.time() * 1000))
            tool.endpoint = ""
            contract = tool.SerializeToString(deterministic=True)
            outcome = await self._store.register(tool.name, tool.version, contract, tool.digest, endpoint)
            is_conflict = outcome == "conflict"
        if is_conflict:
            raise ToolConflictError(f"{tool.name}@{tool.version} is another contract: raise the version")
        if not request.validate_only:
            tool = await self._tool(tool.name, tool.version)
        return registry_pb2.RegisterToolResponse(tool=tool)

    async def GetTool(self, request: registry_pb2.GetToolRequest, context: Context) -> registry_pb2.Tool:
        checked("name", request.name, TOOL_NAME)
        return await self._tool(request.name, request.version)

    async def ListTools(
        self, request: registry_pb2.ListToolsRequest, context: Context
    ) -> registry_pb2.ListToolsResponse:
        size = paged(request.page_size)
        names = [name for name in await self._store.names() if name.startswith(request.name_prefix)]
        rows: list[tuple[str, registry_pb2.Tool]] = []
        for name, versions in zip(names, await self._store.versions(names), strict=True):
            shown = sorted(versions, key=precedence) if request.all_versions else [choose(name, "", list(versions))]
            # a space sorts before whatever may follow in a longer name
            rows.extend((f"{name} {index:06d}", with_host(*versions[v])) for index, v in enumerate(shown))
        rows = [row for row in rows if row[0] > request.page_token]
        following = rows[size - 1][0] if len(rows) > size else ""
        return registry_pb2.ListToolsResponse(tools=[tool for _, tool in rows[:size]], next_page_token=following)

    async def ResolveTools(
        self, request: registry_pb2.ResolveToolsRequest, context: Context
    ) -> registry_pb2.ResolveToolsResponse:
        if len(request.selectors) > MAX_SELECTORS:
            raise InvalidRequestError("too many selectors", fields={"selectors": f"at most {MAX_SELECTORS}"})
        wanted = [split_selector(selector) for selector in request.selectors]
        known = await self._store.versions([name for name, _ in wanted])
        tools = [
            with_host(*versions[choose(name, version_range, list(versions))])
            for (name, version_range), versions in zip(wanted, known, strict=True)
        ]
        return registry_pb2.ResolveToolsResponse(tools=tools, revision=await self._store.revision())

    async def InvokeTool(
        self, request: registry_pb2.InvokeToolRequest, context: Context
    ) -> registry_pb2.InvokeToolResponse:
        tool = await self._tool(checked("name", request.name, TOOL_NAME), request.version)
        is_pure = tool.effect == registry_pb2.EFFECT_PURE
        if not request.idempotency_key and not is_pure:
            raise InvalidRequestError(
                f"{tool.name} has effects: a key keeps them from being doubled",
                fields={"idempotency_key": "is required"},
            )
        key = checked("idempotency_key", request.idempotency_key or secrets.token_hex(16), CALLER_ID)
        arguments = json.dumps(from_struct(request.arguments, "arguments"))
        outcome = await self._invoke(tool, arguments, key)
        if outcome.HasField("error"):
            raise MeshError.from_status(outcome.error)
        return registry_pb2.InvokeToolResponse(
            result=to_value(json.loads(outcome.result_json)), replayed=outcome.replayed, version=tool.version
        )

    async def _invoke(self, tool: registry_pb2.Tool, arguments_json: str, key: str) -> Outcome:
        caller = CALLER.get()
        pin = f"{tool.name}@{tool.version}"
        grant = caller.grant or Grant(
            tenant=caller.tenant, principal=caller.principal, agent_id="registry", task_id=f"call-{key}", tools=[pin]
        )
        stub = ToolServiceStub(self._channels.to(tool.endpoint))
        call = InvokeRequest(tool=tool.name, version=tool.version, arguments_json=arguments_json, idempotency_key=key)
        timeout_s = tool.timeout.ToMilliseconds() / 1000 + 5
        stream = channel.stream(stub.Invoke, call, timeout_s=timeout_s, grant=self._signer.sign(grant))
        outcome: Outcome | None = None
        try:
            async for response in stream:
                if response.HasField("outcome"):
                    outcome = response.outcome
        except UnavailableError:
            lost = f"the host of {pin} does not answer; the call may have run: repeat it with the same idempotency_key"
            raise UnavailableError(lost, metadata={"idempotency_key": key}, retry_after_s=1) from None
        if outcome is None:
            raise ToolFailedError(f"{pin} gave no outcome")
        return outcome

    async def _tool(self, name: str, version: str) -> registry_pb2.Tool:
        (versions,) = await self._store.versions([name])
        if not versions:
            raise ToolNotFoundError(f"no tool {name} is registered: `meshwright tool list` shows what is")
        return with_host(*versions[choose(name, version, list(versions))])

    async def CheckCompatibility(
        self, request: registry_pb2.CheckCompatibilityRequest, context: Context
    ) -> registry_pb2.CheckCompatibilityResponse:
        raise NotYetAvailableError("CheckCompatibility is not served by this version")

    async def SetAlias(self, request: registry_pb2.SetAliasRequest, context: Context) -> registry_pb2.Tool:
        raise NotYetAvailableError("SetAlias is not served by this version: select by version or range")

    async def DeprecateTool(self, request: registry_pb2.DeprecateToolRequest, context: Context) -> registry_pb2.Tool:
        raise NotYetAvailableError("DeprecateTool is not served by this version")

    async def WatchTools(
        self, request: registry_pb2.WatchToolsRequest, context: Context
    ) -> AsyncIterator[registry_pb2.WatchToolsResponse]:
        raise NotYetAvailableError("WatchTools is not served by this version: list the tools instead")
        yield registry_pb2.WatchToolsResponse()


def with_host(contract: bytes, endpoint: str) -> registry_pb2.Tool:
    """Joins an immutable contract with the host that serves it now."""
    tool = registry_pb2.Tool.FromString(contract)
    tool.endpoint = endpoint
    return tool
