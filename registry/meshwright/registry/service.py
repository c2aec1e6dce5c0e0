"""ToolRegistryService: protobuf to domain objects and back."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence

from meshwright.core import channel
from meshwright.core.canonical import from_struct, to_value
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AbortedError,
    InvalidRequestError,
    MeshError,
    ToolConflictError,
    ToolFailedError,
    ToolNotFoundError,
    UnavailableError,
)
from meshwright.core.grant import CALL, REGISTRY, Signer
from meshwright.core.ids import CALLER_ID, TOOL_NAME, VERSION, checked
from meshwright.core.interceptors import CALLER, Caller, Context
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceServicer
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest, Outcome
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from meshwright.registry.authority import check_guarded
from meshwright.registry.catalog import (
    UNPLACED,
    ToolState,
    check_replacement,
    checked_contract,
    checked_prefix,
    checked_sunset,
    checked_writer,
    refuse_breaking,
    split_selector,
)
from meshwright.registry.compat import contract_changes, is_compatible
from meshwright.registry.follower import Follower
from meshwright.registry.page import DEFAULT_PAGE, page_size, page_token, position
from meshwright.registry.store import MAX_ALIASES, MAX_TOOLS, MAX_VERSIONS, Actor, CatalogStore
from meshwright.registry.version import ALIAS, is_release, line, neighbours, order

HOST_GRACE_S = 5
"""What a call may take beside the tool's own time."""
MAX_SELECTORS = 256
PAGE_BYTES = 4 * 2**20
"""How much a page holds; contracts may be large, and a message is at most twice as long."""
MAX_TRIES = 100
"""How often a registration is held against the versions that came in between."""

ANOTHER = "the catalog was emptied: list the tools and watch from now on"

Place = tuple[str, str, ToolState]
"""A version in the catalog: name, version, and how its tool stands."""


class ToolRegistry(ToolRegistryServiceServicer):
    """Contracts of tools, kept in the store; calls for those who have no mesh client."""

    def __init__(self, store: CatalogStore, signer: Signer, channels: Channels, *, is_asking: bool = False) -> None:
        self._store = store
        self._signer = signer
        self._channels = channels
        self._is_asking = is_asking
        self.follower = Follower("tools", store.revision, self._changed)

    async def RegisterTool(self, request: pb.RegisterToolRequest, context: Context) -> pb.RegisterToolResponse:
        checked_writer(CALLER.get(), request.tool.name)
        check_guarded(is_open=request.open, is_asking=self._is_asking)
        tool = checked_contract(request.tool)
        if request.validate_only:
            _, changes = await self._checked(tool)
            return pb.RegisterToolResponse(tool=tool, changes=changes)
        endpoint, tool.endpoint = tool.endpoint, ""
        tool.create_time.FromMilliseconds(int(time.time() * 1000))
        contract = tool.SerializeToString(deterministic=True)
        for _ in range(MAX_TRIES):
            seen, changes = await self._checked(tool)
            outcome = await self._store.register(
                tool.name, tool.version, contract, tool.digest, endpoint, seen=len(seen.hosts), by=actor()
            )
            if outcome != "again":
                refuse(outcome, tool)
                return pb.RegisterToolResponse(tool=await self._tool(tool.name, tool.version), changes=changes)
        raise AbortedError(f"others register versions of {tool.name} all the time: try again")

    async def _checked(self, tool: pb.Tool) -> tuple[ToolState, list[pb.SchemaChange]]:
        """Holds a contract against what is registered.

        Returns:
            What it was held against, and the differences from the release below it.

        Raises:
            ToolConflictError: The version is taken by another contract.
            IncompatibleContractError: It is new, and breaks with a neighbour.
        """
        _, (state,) = await self._store.states([tool.name])
        below, above = neighbours(tool.version, state.hosts)
        is_known = tool.version in state.hosts
        wanted = [version for version in (below, above) if version] + [tool.version] * is_known
        places = [(tool.name, version, state) for version in wanted]
        found = dict(zip(wanted, await self._tools(places), strict=True))
        if is_known and found[tool.version].digest != tool.digest:
            refuse("conflict", tool)
        changes = await compared(found[below], tool) if below else []
        if not is_known and is_release(tool.version):  # a pre-release promises nothing: no range chooses it
            refuse_breaking(tool, below, changes)
            refuse_breaking(tool, above, await compared(tool, found[above]) if above else [])
        return state, changes

    async def CheckCompatibility(
        self, request: pb.CheckCompatibilityRequest, context: Context
    ) -> pb.CheckCompatibilityResponse:
        placed = pb.Tool()
        placed.CopyFrom(request.candidate)
        placed.endpoint = placed.endpoint or UNPLACED
        candidate = checked_contract(placed, "candidate")
        _, (state,) = await self._store.states([candidate.name])
        if request.against:
            version = state.chosen(candidate.name, request.against)
        else:
            comparable = [one for one in state.hosts if line(one) == line(candidate.version) and is_release(one)]
            if not comparable:
                said = f"no release of {candidate.name} is to be compatible with {candidate.version}: name one"
                raise ToolNotFoundError(said, fields={"against": "a registered version"})
            version = max(comparable, key=order)
        (old,) = await self._tools([(candidate.name, version, state)])
        changes = await compared(old, candidate)
        return pb.CheckCompatibilityResponse(compatible=is_compatible(changes), changes=changes)

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.Tool:
        checked_writer(CALLER.get(), request.name)
        name, version = checked("name", request.name, TOOL_NAME), checked("version", request.version, VERSION)
        outcome = await self._store.set_alias(name, checked("alias", request.alias, ALIAS), version, by=actor())
        if outcome == "full":
            limits = f"at most {MAX_ALIASES} of a tool: move one that there is"
            raise InvalidRequestError(f"{name} has too many aliases", fields={"alias": limits})
        return await self._marked(outcome, name, version)

    async def DeprecateTool(self, request: pb.DeprecateToolRequest, context: Context) -> pb.Tool:
        checked_writer(CALLER.get(), request.name)
        sunset_ms = checked_sunset(request, int(time.time() * 1000))
        if request.replaced_by:
            replacement, _ = split_selector(request.replaced_by, "replaced_by")
            _, (state,) = await self._store.states([replacement])
            check_replacement(request, state)
        outcome = await self._store.deprecate(request.name, request.version, sunset_ms, request.replaced_by, by=actor())
        return await self._marked(outcome, request.name, request.version)

    async def _marked(self, outcome: str, name: str, version: str) -> pb.Tool:
        if outcome == "unknown":
            raise ToolNotFoundError(f"no tool {name}@{version} is registered: `meshwright tool list` shows what is")
        return await self._tool(name, version)

    async def GetTool(self, request: pb.GetToolRequest, context: Context) -> pb.Tool:
        return await self._tool(checked("name", request.name, TOOL_NAME), request.version)

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:
        size, (after, version) = page_size(request.page_size), position(request.page_token)
        is_amid = bool(version) and request.all_versions
        # two more than fit: the first may have been shown to its end, the last tells that there is a further page
        names = await self._store.names(checked_prefix(request.name_prefix), after, size + 2, inclusive=is_amid)
        rows: list[Place] = []
        for name, state in await self._standing(names):
            if not state.hosts:  # the catalog was emptied at this moment
                continue
            shown = sorted(state.hosts, key=order) if request.all_versions else [state.chosen(name, "")]
            if is_amid and name == after:
                shown = [one for one in shown if order(one) > order(version)]
            rows.extend((name, one, state) for one in shown)
            if len(rows) > size:
                break
        tools = fitting(await self._tools(rows[:size]))
        following = ""
        if len(rows) > len(tools):
            following = page_token(tools[-1].name, tools[-1].version if request.all_versions else "")
        return pb.ListToolsResponse(tools=tools, next_page_token=following)

    async def ResolveTools(self, request: pb.ResolveToolsRequest, context: Context) -> pb.ResolveToolsResponse:
        if len(request.selectors) > MAX_SELECTORS:
            raise InvalidRequestError("too many selectors", fields={"selectors": f"at most {MAX_SELECTORS}"})
        wanted = [split_selector(selector) for selector in request.selectors]
        names = list(dict.fromkeys(name for name, _ in wanted))
        revision, found = await self._store.states(names)
        states = dict(zip(names, found, strict=True))
        places = [(name, states[name].chosen(name, selected), states[name]) for name, selected in wanted]
        return pb.ResolveToolsResponse(tools=await self._tools(places), revision=revision)

    async def InvokeTool(self, request: pb.InvokeToolRequest, context: Context) -> pb.InvokeToolResponse:
        tool = await self._tool(checked("name", request.name, TOOL_NAME), request.version)
        is_pure = tool.effect == pb.EFFECT_PURE
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
        return pb.InvokeToolResponse(
            result=to_value(json.loads(outcome.result_json)), replayed=outcome.replayed, version=tool.version
        )

    async def _invoke(self, tool: pb.Tool, arguments_json: str, key: str) -> Outcome:
        """Calls a tool's host.

        Raises:
            UnavailableError: It does not answer; says whether the call may have run.
            MeshError: It refused the call.
        """
        caller = CALLER.get()
        pin = f"{tool.name}@{tool.version}"
        grant = caller.grant or call_grant(caller, tool, key)
        stub = ToolServiceStub(self._channels.to(tool.endpoint))
        call = InvokeRequest(tool=tool.name, version=tool.version, arguments_json=arguments_json, idempotency_key=key)
        timeout_s = tool.timeout.ToMilliseconds() / 1000 + HOST_GRACE_S
        stream = channel.stream(stub.Invoke, call, timeout_s=timeout_s, grant=self._signer.sign(grant))
        outcome: Outcome | None = None
        try:
            async for response in stream:
                if response.HasField("outcome"):
                    outcome = response.outcome
        except UnavailableError:
            raise host_lost(tool, key) from None
        if outcome is None:
            raise ToolFailedError(f"{pin} gave no outcome")
        return outcome

    async def WatchTools(self, request: pb.WatchToolsRequest, context: Context) -> AsyncIterator[pb.WatchToolsResponse]:
        start, revision = self.follower.start, request.after_revision
        newest = await self._store.revision()
        if revision > newest:
            raise AbortedError(ANOTHER)
        if not revision:
            revision = newest
            async for response in self._registered(newest):
                yield response
        while True:
            changes = await self.follower.after(revision, start)
            for _, response in changes:
                yield response
            revision = changes[-1][0]

    async def _registered(self, revision: int) -> AsyncIterator[pb.WatchToolsResponse]:
        """Goes through every version of every tool; the last one bears the revision at which this began.

        The others bear none, so that whoever is cut off before it begins anew.
        """
        last: pb.WatchToolsResponse | None = None
        after = ""
        while names := await self._store.names("", after, DEFAULT_PAGE):
            for name, state in await self._standing(names):
                places = [(name, version, state) for version in sorted(state.hosts, key=order)]
                for begin in range(0, len(places), DEFAULT_PAGE):
                    for tool in await self._tools(places[begin : begin + DEFAULT_PAGE]):
                        if last:
                            yield last
                        last = pb.WatchToolsResponse(tool=tool)
            after = names[-1]
        if last:
            last.revision = revision
            yield last

    async def _changed(self, after: int) -> list[tuple[int, pb.WatchToolsResponse]]:
        """Reads changes after a revision, with what they changed as it is now."""
        changes = await self._store.changes(after)
        states = dict(await self._standing(sorted({name for _, (name, _) in changes})))
        if any(version not in states[name].hosts for _, (name, version) in changes):
            raise AbortedError(ANOTHER)
        tools = await self._tools([(name, version, states[name]) for _, (name, version) in changes])
        return [
            (revision, pb.WatchToolsResponse(revision=revision, tool=tool))
            for (revision, _), tool in zip(changes, tools, strict=True)
        ]

    async def _standing(self, names: Sequence[str]) -> list[tuple[str, ToolState]]:
        """Reads how tools stand."""
        _, states = await self._store.states(names)
        return list(zip(names, states, strict=True))

    async def _tools(self, places: Sequence[Place]) -> list[pb.Tool]:
        """Reads versions, each with its state."""
        contracts = await self._store.contracts([(name, version) for name, version, _ in places]) if places else []
        return [state.shown(contract, version) for contract, (_, version, state) in zip(contracts, places, strict=True)]

    async def _tool(self, name: str, wanted: str) -> pb.Tool:
        _, (state,) = await self._store.states([name])
        if not state.hosts:
            raise ToolNotFoundError(f"no tool {name} is registered: `meshwright tool list` shows what is")
        (tool,) = await self._tools([(name, state.chosen(name, wanted), state)])
        return tool


def actor() -> Actor:
    """Names whoever calls, as the audit tells of it."""
    caller = CALLER.get()
    return caller.tenant, caller.principal


def call_grant(caller: Caller, tool: pb.Tool, key: str) -> Grant:
    """Makes the grant of one call from outside of any task.

    It names the one tool and, where that is an agent, this agent: there its host may start the one task that bears the
    call's key, within the call's time.

    Args:
        caller: In whose name the tool is called.
        tool: What is called.
        key: Idempotency key.
    """
    grant = Grant(
        tenant=caller.tenant,
        principal=caller.principal,
        agent_id=REGISTRY,
        task_id=f"{CALL}{key}",
        tools=[f"{tool.name}@{tool.version}"],
        delegates=[tool.agent_id] if tool.agent_id else (),
        scopes=caller.tool_scopes,
    )
    grant.deadline.FromMilliseconds(int((time.time() + CLOCKS_S) * 1000) + tool.timeout.ToMilliseconds())
    return grant


def host_lost(tool: pb.Tool, key: str) -> UnavailableError:
    """Says what a caller may do whose call was lost with the tool's host."""
    lost = f"the host of {tool.name}@{tool.version} does not answer"
    if tool.effect == pb.EFFECT_PURE:
        return UnavailableError(f"{lost}; nothing was changed: call it again", retry_after_s=1)
    told = f"{lost}; the call may have run: repeat it with the same idempotency_key"
    return UnavailableError(told, metadata={"idempotency_key": key}, retry_after_s=1)


async def compared(old: pb.Tool, new: pb.Tool) -> list[pb.SchemaChange]:
    """Compares contracts in a thread: schemas that are hard to compare keep no other call waiting."""
    return await asyncio.to_thread(contract_changes, old, new)


def fitting(tools: list[pb.Tool]) -> list[pb.Tool]:
    """Returns the first tools that fit into one message; the first one always does."""
    room = PAGE_BYTES
    for many, tool in enumerate(tools):
        room -= tool.ByteSize()
        if many and room < 0:
            return tools[:many]
    return tools


def refuse(outcome: str, tool: pb.Tool) -> None:
    """Raises what a registration's outcome means, where it is a failure.

    Raises:
        ToolConflictError: The version is taken by another contract.
        InvalidRequestError: There are too many tools, or versions of this one.
    """
    pin = f"{tool.name}@{tool.version}"
    if outcome == "conflict":
        raise ToolConflictError(f"{pin} is another contract: raise the version")
    if outcome == "full":
        limits = f"at most {MAX_TOOLS} tools, and {MAX_VERSIONS} versions of each"
        raise InvalidRequestError(f"{pin} is one too many", fields={"tool.version": limits})
