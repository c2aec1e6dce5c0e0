"""An agent's tools: resolved to pins, schemas compiled, called where they are hosted."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from meshwright.agents.models.model import JsonObject, ToolSpec
from meshwright.agents.passing import Report
from meshwright.core import channel
from meshwright.core.canonical import from_struct
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AbortedError,
    DeadlineExceededError,
    MeshError,
    ToolFailedError,
    ToolNotFoundError,
    UnavailableError,
)
from meshwright.core.recurring import Recurring
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.step_event_pb2 import ToolCall
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_PURE, Tool, WatchToolsResponse
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest, Outcome
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.schema import Schema

log = structlog.get_logger("toolbox")
GRACE_S = 5.0
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Pin:
    """One tool at one version, with its schema compiled."""

    tool: Tool
    arguments: Schema
    spec: ToolSpec

    @property
    def id(self) -> str:
        """The pin as it is journaled: `name@version`."""
        return f"{self.tool.name}@{self.tool.version}"

    @property
    def timeout_s(self) -> float:
        """Time for one call."""
        return self.tool.timeout.ToMilliseconds() / 1000


class Toolbox:
    """The tools of one agent's process.

    Args:
        selectors: What the agent may use.
        host: Tools that run in this process: called without a hop, through the same chain.
        registry: Resolves selectors and finds hosts.
        channels: Connections to other hosts.
    """

    def __init__(self, selectors: Sequence[str], host: ToolHost, registry: RegistryClient, channels: Channels) -> None:
        self._selectors = selectors
        self._names = {selector.partition("@")[0] for selector in selectors}
        self._host = host
        self._registry = registry
        self._channels = channels
        self._pins: dict[str, Pin] = {}
        self._chosen: dict[str, Tool] = {}
        self._revision = 0
        self.current: tuple[str, ...] = ()

    async def resolve(self) -> None:
        """Pins the agent's selectors for tasks to come."""
        found = await self._registry.resolution(self._selectors)
        self._keep(found.tools)
        self._revision = found.revision
        self._chosen = {f"{tool.name}@{tool.version}": tool for tool in found.tools}
        self.current = tuple(f"{tool.name}@{tool.version}" for tool in found.tools)

    async def wait_until_there(self) -> None:
        """Resolves the selectors as soon as every tool is registered: an agent without its tools would only disappoint.

        Raises:
            MeshError: The registry refuses the selectors.
        """
        told, failing = "", Recurring()
        while True:
            try:
                before = (await self._registry.resolution(())).revision
                missing = await self._missing()
            except (DeadlineExceededError, UnavailableError) as error:  # it has just answered, and will again
                if failing.is_news():
                    log.warning("tools_not_resolved", error=error.message)
                await asyncio.sleep(RETRY_S)
                continue
            if not missing:
                if told:
                    log.info("tools_there", tools=self.current)
                return
            if missing != told:  # other tools come and go meanwhile, which is no news
                told = missing
                log.warning("tool_missing", error=told)
            with contextlib.suppress(AbortedError):
                async with contextlib.aclosing(self._registry.watch_tools(before)) as changes:
                    await anext(changes)

    async def _missing(self) -> str:
        """Resolves the selectors; returns which tool nobody has registered, in words, or nothing."""
        try:
            await self.resolve()
        except ToolNotFoundError as error:
            return error.message
        return ""

    async def follow(self) -> None:
        """Keeps pins true until cancelled: selectors are resolved anew, for tasks to come, when their tools change."""
        failing = Recurring()
        while True:
            try:
                await self._follow()
            except MeshError as error:
                if failing.is_news():
                    log.warning("tools_not_followed", error=error.message)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        before = (await self._registry.resolution(())).revision
        await self._renew()
        async with contextlib.aclosing(self._registry.watch_tools(before)) as changes:
            async for change in changes:
                if self._has_news(change):
                    await self._renew()

    async def _renew(self) -> None:
        if missing := await self._missing():  # the catalog was emptied: what was there is still called by its pins
            log.warning("tool_missing", error=missing)

    def _has_news(self, change: WatchToolsResponse) -> bool:
        """Takes in a change; whether selectors may mean another version now, since more than a host has moved."""
        tool = change.tool
        pin = f"{tool.name}@{tool.version}"
        is_resolved = 0 < change.revision <= self._revision
        if pin in self._pins and not (is_resolved and pin in self._chosen):
            self._keep([tool])
        if is_resolved or tool.name not in self._names:
            return False
        if pin not in self._chosen:
            return True
        moved = Tool()
        moved.CopyFrom(self._chosen[pin])
        moved.endpoint = tool.endpoint
        return moved != tool

    async def pinned(self, pins: Iterable[str]) -> dict[str, Pin]:
        """Returns a task's tools by name; versions that this process has not seen are fetched."""
        wanted = list(pins)
        missing = [pin for pin in wanted if pin not in self._pins]
        if missing:
            self._keep(await self._registry.resolve(missing))
        return {self._pins[pin].tool.name: self._pins[pin] for pin in wanted}

    def known(self, pins: Iterable[str]) -> dict[str, Pin]:
        """Returns those of a task's tools by name that need not be asked for."""
        return {self._pins[pin].tool.name: self._pins[pin] for pin in pins if pin in self._pins}

    def _keep(self, tools: Iterable[Tool]) -> None:
        for tool in tools:
            known = self._pins.get(f"{tool.name}@{tool.version}")
            if known and known.tool.digest == tool.digest:
                self._pins[known.id] = replace(known, tool=tool)
                continue
            schema: JsonObject = from_struct(tool.input_schema, "input_schema")
            pin = Pin(tool, Schema(schema), ToolSpec(tool.name, tool.description, schema))
            self._pins[pin.id] = pin

    def is_free(self, pin: Pin) -> bool:
        """Whether a call leaves no trace, nor a bill: it may be begun before it is journaled, and begun again."""
        return pin.tool.effect == EFFECT_PURE and not pin.tool.cost_micros and self._host.serves(pin.id)

    async def call(
        self,
        pin: Pin,
        arguments: dict[str, Any],
        intent: ToolCall,
        grant: Grant,
        token: Callable[[], bytes],
        *,
        report: Report,
    ) -> Outcome:
        """Calls a tool as it was journaled; the same key never doubles its effect.

        Args:
            pin: The tool.
            arguments: Held against its schema before.
            intent: What was journaled; its key and its digest count.
            grant: Under which it is called.
            token: Signs the grant, where the call leaves this process.
            report: Is told how far the call has come.

        Raises:
            MeshError: The call was refused or its host cannot be reached; the tool's own failure is in the outcome.
        """
        if self._host.serves(pin.id):
            key, digest = intent.idempotency_key, intent.intent_digest
            return await self._host.call(grant, pin.id, arguments, key, digest, on_progress=report)
        request = InvokeRequest(
            tool=pin.tool.name,
            version=pin.tool.version,
            arguments_json=json.dumps(arguments),
            idempotency_key=intent.idempotency_key,
            intent_digest=intent.intent_digest,
            task_id=grant.task_id,
        )
        try:
            return await self._dial(self._pins.get(pin.id, pin), request, token(), report)
        except UnavailableError:
            (moved,) = await self._registry.resolve([pin.id])
            self._keep([moved])
            return await self._dial(self._pins[pin.id], request, token(), report)

    async def forgo(self, pin: Pin, intent: ToolCall, grant: Grant, error: MeshError) -> Outcome:
        """Gives up a call whose host cannot be reached.

        Raises:
            OutcomeUnknownError: It may have run.
            MeshError: The error itself, where a call leaves no trace.
        """
        if type(error) is UnavailableError:  # whose words may be those of a socket
            error = UnavailableError(f"the host of {pin.id} does not answer", retry_after_s=error.retry_after_s)
        if pin.tool.effect == EFFECT_PURE:
            raise error
        return await self._host.forgo(grant, intent.idempotency_key, intent.intent_digest, error)

    async def _dial(self, pin: Pin, request: InvokeRequest, token: bytes, report: Report) -> Outcome:
        """Calls a host; one that has too much to do, and has not even read the call, is asked again within its time."""
        ends = time.monotonic() + pin.timeout_s
        return await channel.while_overloaded(lambda: self._invoke(pin, request, token, report), ends)

    async def _invoke(self, pin: Pin, request: InvokeRequest, token: bytes, report: Report) -> Outcome:
        stub = ToolServiceStub(self._channels.to(pin.tool.endpoint))
        timeout_s = pin.timeout_s + GRACE_S
        outcome: Outcome | None = None
        async for response in channel.stream(stub.Invoke, request, timeout_s=timeout_s, grant=token):
            if response.HasField("progress"):
                report(response.progress.fraction, response.progress.message)
            if response.HasField("outcome"):  # read on to the status: to leave the stream here would cancel the call
                outcome = response.outcome
        if outcome is None:
            raise ToolFailedError(f"{pin.id} gave no outcome")
        return outcome
