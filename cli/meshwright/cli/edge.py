"""The edge as the command line sees it: the contract's own services, through Envoy."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import grpc

from meshwright.cli.credential import KeyedChannel
from meshwright.cli.place import Place
from meshwright.core import channel
from meshwright.core.errors import (
    AgentNotFoundError,
    DeadlineExceededError,
    InternalError,
    MeshError,
    TlsRefusedError,
    UnavailableError,
)
from meshwright.core.ids import AGENT_ID, uuid7
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.agents.v1.webhook_service_pb2_grpc import WebhookServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub

CALL_S = 10.0
AGENT_KEY = "x-agent-id"
"""Header by which the edge picks an agent."""
RECONNECT_S = 0.3
SILENCE_S = 35.0
"""A stream that brings nothing for so long, not even one of two heartbeats, is taken for broken."""
PATIENCE = 40
"""Attempts in a row, without an event in between, to reach a stream again."""


class Edge:
    """A client of one mesh.

    Args:
        url: `http://host:port` or `https://host:port`.
        api_key: What it is shown with every call; empty: nothing.
        authority: File of the authorities that an https edge's certificate may be of; empty: the public ones.

    Raises:
        SetupError: The URL or the file is none.
    """

    def __init__(self, url: str, api_key: str = "", *, authority: str = "") -> None:
        self.url = url
        self._channel = dialled(url, authority)
        keyed = cast("grpc.aio.Channel", KeyedChannel(self._channel, api_key)) if api_key else self._channel
        self.agents = AgentServiceStub(keyed)
        self.tasks = TaskServiceStub(keyed)
        self.sessions = SessionServiceStub(keyed)
        self.webhooks = WebhookServiceStub(keyed)
        self.directory = AgentDirectoryServiceStub(keyed)
        self.tools = ToolRegistryServiceStub(keyed)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def call(self, method: Any, request: Any, timeout_s: float = CALL_S) -> Any:
        """Calls a unary method of one of the stubs; a mesh that is overloaded is asked again.

        Raises:
            MeshError: What the mesh answered, or that it is not there.
        """
        try:
            return await channel.patient(method, request, timeout_s=timeout_s)
        except MeshError as error:
            if type(error) is DeadlineExceededError:
                hint = f"`meshwright doctor --production {self.url}` says what is away; often it is the store"
                raise DeadlineExceededError(f"{self.url} did not answer within {timeout_s:g} s: {hint}") from None
            raise self._explained(error) from None

    def _explained(self, error: MeshError) -> MeshError:
        """Says in place of gRPC's words for a refused connection what to do."""
        if isinstance(error, TlsRefusedError) and channel.REFUSALS[channel.PLAIN] in error.message:
            return TlsRefusedError(f"{self.url} speaks plain text: write http://, or switch TLS on there")
        if not isinstance(error, UnavailableError) or not error.message.startswith("failed to connect"):
            return error
        if channel.CLOSED in error.message:
            return UnavailableError(f"{self.url} closes connections: where it speaks TLS, write https://")
        hint = "start one with `meshwright dev`, or name another one with --edge"
        return UnavailableError(f"no mesh answers at {self.url}: {hint}")

    async def health(self, agent_id: str) -> HealthResponse:
        """Asks one agent how it is; the edge picks it by a header."""
        call = self.agents.Health(HealthRequest(agent_id=agent_id), timeout=CALL_S, metadata=[(AGENT_KEY, agent_id)])
        try:
            response: HealthResponse = await call
        except grpc.aio.AioRpcError as error:
            raise channel.failure(error) from None
        return response

    async def submit(self, request: TaskRequest) -> TaskResponse:
        """Submits a task; one that names an agent goes to that agent, whatever becomes of the default one.

        Raises:
            MeshError: The task was not accepted.
        """
        is_named = AGENT_ID.fullmatch(request.agent_id)
        named = (
            [(AGENT_KEY, request.agent_id)] if is_named else []
        )  # what is no name is refused in the mesh's own words

        def submit_task(sent: TaskRequest, *, metadata: Sequence[tuple[str, str | bytes]], **options: Any) -> Any:
            return self.tasks.SubmitTask(sent, metadata=[*metadata, *named], **options)

        try:
            accepted: TaskResponse = await self.call(submit_task, request)
        except AgentNotFoundError:
            hint = "`meshwright agent list` shows who is"
            raise AgentNotFoundError(f"no agent {request.agent_id} is here: {hint}") from None
        return accepted

    async def steps(self, request: TaskRequest) -> AsyncIterator[StepEvent]:
        """Submits a task and yields its steps as they happen; a stream that breaks is resumed where it was.

        Raises:
            MeshError: The task was not accepted, or the mesh stays away.
        """
        request.task_id = request.task_id or uuid7()
        accepted = await self.submit(request)
        async for event in self.watch(accepted.task_id):
            yield event

    async def watch(self, task_id: str, after: int = 0, principal: str = "") -> AsyncGenerator[StepEvent, None]:
        """Yields a task's steps after a sequence until its result, across broken connections."""
        failures = 0
        while True:
            pause_s = RECONNECT_S
            request = WatchTaskRequest(task_id=task_id, after_sequence=after, include_deltas=True, principal=principal)
            try:
                async with contextlib.aclosing(self._events(request)) as events:
                    async for event in events:
                        failures = 0
                        after = max(after, event.sequence)
                        yield event
                        if event.HasField("result"):
                            return
            except MeshError as error:
                failures += 1
                pause_s = error.retry_after_s or RECONNECT_S
                if not (error.is_retryable or isinstance(error, InternalError)):  # a reset stream comes as INTERNAL
                    raise self._explained(error) from None
                if failures > PATIENCE:
                    raise self._explained(error) from None
            else:
                failures += 1
                if failures > 1:
                    return  # nothing follows any more
            await asyncio.sleep(pause_s)

    async def _events(self, request: WatchTaskRequest) -> AsyncGenerator[StepEvent, None]:
        """Yields what one connection brings.

        Raises:
            MeshError: It broke, or brings nothing any more.
        """
        async with contextlib.aclosing(channel.stream(self.tasks.WatchTask, request, timeout_s=None)) as stream:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        event = await anext(stream, None)
                except TimeoutError:
                    raise UnavailableError(f"the stream was silent for {SILENCE_S:g} s") from None
                if event is None:
                    return
                yield event


def dialled(url: str, authority: str) -> grpc.aio.Channel:
    """Opens a channel to the edge that a URL names.

    Raises:
        SetupError: It names none.
    """
    place = Place.of_edge(url)
    return channel.dial_edge(place.address, authority) if place.is_tls else channel.dial(place.address)
