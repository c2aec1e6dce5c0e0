"""An agent's tools: resolved to pins, schemas compiled, called where they are hosted."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from meshwright.agents.models.model import JsonObject, ToolSpec
from meshwright.agents.passing import Report
from meshwright.core import channel
from meshwright.core.canonical import from_struct
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError, ToolFailedError, UnavailableError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.step_event_pb2 import ToolCall
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_PURE, Tool
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest, Outcome
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.schema import Schema

GRACE_S = 5.0


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
        self._host = host
        self._registry = registry
        self._channels = channels
        self._pins: dict[str, Pin] = {}
        self.current: tuple[str, ...] = ()

    async def resolve(self) -> None:
        """Pins the agent's selectors for tasks to come."""
        tools = await self._registry.resolve(self._selectors)
        self._keep(tools)
        self.current = tuple(f"{tool.name}@{tool.version}" for tool in tools)

    async def pinned(self, pins: Iterable[str]) -> dict[str, Pin]:
        """Returns a task's tools by name; versions that this process has not seen are fetched."""
        wanted = list(pins)
        missing = [pin for pin in wanted if pin not in self._pins]
        if missing:
            self._keep(await self._registry.resolve(missing))
        return {self._pins[pin].tool.name: self._pins[pin] for pin in wanted}

    def _keep(self, tools: Iterable[Tool]) -> None:
        for tool in tools:
            schema: JsonObject = from_struct(tool.input_schema, "input_schema")
            pin = Pin(tool, Schema(schema), ToolSpec(tool.name, tool.description, schema))
            self._pins[pin.id] = pin

    def is_free(self, pin: Pin) -> bool:
        """Whether a call leaves no trace: it may be begun before it is journaled, and begun again."""
        return pin.tool.effect == EFFECT_PURE and self._host.serves(pin.id)

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
        )
        try:
            return await self._dial(pin, request, token(), report)
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
