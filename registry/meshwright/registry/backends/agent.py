"""Tools that are agents, for callers outside of a task: a call becomes a task, its answer the result."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Annotated, Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from pydantic import AfterValidator, Field

from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AgentNotFoundError,
    DeadlineExceededError,
    MeshError,
    PermissionDeniedError,
    SetupError,
    TaskTimeoutError,
    ToolFailedError,
)
from meshwright.core.grant import REGISTRY
from meshwright.core.ids import AGENT_ID
from meshwright.core.interceptors import CALLER
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_COMPLETED,
    TASK_STATUS_INPUT_REQUIRED,
    TaskRequest,
    TaskResponse,
    TaskStatus,
)
from meshwright.gen.agents.v1.task_service_pb2 import CancelTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2 import GetAgentRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.registry import current_invocation
from meshwright.registry.backends.declaration import (
    DeclaredTool,
    JsonSchema,
    Options,
    Surroundings,
    ToolOptions,
    contract_parts,
)

LOOKUP_S = 5.0
CANCEL_S = 5.0
MARGIN_S = 0.5
"""So much before its own end a call stops waiting, so that it can still take its task back."""
INPUT_SCHEMA: JsonSchema = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "minLength": 1, "description": "All that the agent needs to know"}},
    "required": ["prompt"],
    "additionalProperties": False,
}


class AgentOptions(Options):
    """What a declaration says of an agent."""

    agent_id: Annotated[str, AfterValidator(AGENT_ID.validated)] = Field(description="Who does the work")
    max_steps: int = Field(default=0, ge=0, le=25, description="Rounds of the task; 0: the agent's default")
    token_budget: int = Field(default=0, ge=0, le=32_768, description="Tokens of the task; 0: the agent's default")


@dataclass(frozen=True, kw_only=True)
class AgentTool(DeclaredTool):
    """A tool that is an agent."""

    options: AgentOptions = field(repr=False)
    registry: str
    tls_dir: str

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Has the agent do a task in the caller's name, named by the call's key; returns its output, or its text.

        The task ends with the call, or by its own timeout where this host is lost.

        Raises:
            PermissionDeniedError: It is called within a task, where delegation bounds depth and budget.
            NotCallableError: The agent takes no tasks from outside.
            AgentNotFoundError: The agent is not here.
            ToolFailedError: The task failed, was cancelled, or asks a person.
            TaskTimeoutError: The time is over.
        """
        invocation, token = current_invocation(), CALLER.get().token
        if invocation.agent_id != REGISTRY or not token:
            agent_id = self.options.agent_id
            raise PermissionDeniedError(f"{self.name} is for callers outside of a task: list {agent_id} in `delegates`")
        timeout_s = self.time_for_call_s()
        channels = Channels(self.tls_dir)
        try:
            work = Work(self._task(arguments, invocation.key), token, channels, await self._target(channels))
            response = await self._ended(work, timeout_s)
        finally:
            await channels.close()
        return result_of(self.name, self.options.agent_id, response)

    def _task(self, arguments: dict[str, Any], key: str) -> TaskRequest:
        timeout = Duration()
        timeout.FromMilliseconds(max(1, int(self.timeout_s * 1000)))
        return TaskRequest(
            task_id=key,
            agent_id=self.options.agent_id,
            prompt=arguments["prompt"],
            max_steps=self.options.max_steps,
            token_budget=self.options.token_budget,
            timeout=timeout,
        )

    async def _target(self, channels: Channels) -> str:
        directory = AgentDirectoryServiceStub(channels.to(self.registry))
        request = GetAgentRequest(agent_id=self.options.agent_id)
        card = await channel.unary(directory.GetAgent, request, timeout_s=LOOKUP_S)
        ready = [endpoint.target for endpoint in card.endpoints if not endpoint.draining]
        if not ready:
            raise AgentNotFoundError(f"agent {self.options.agent_id} is not here: `meshwright agent list` shows who is")
        return str(ready[0])

    async def _ended(self, work: "Work", timeout_s: float) -> TaskResponse:
        """Waits for a task's end; one that is not at its end when the wait is, is cancelled.

        Where the connection is lost it goes on: the repeated call finds it.
        """
        reason = f"the call of {self.name} has ended"
        try:
            response = await work.run(max(timeout_s - MARGIN_S, timeout_s / 2))
        except DeadlineExceededError:
            await work.cancel(reason)
            raise TaskTimeoutError(f"{self.name} took longer than {self.timeout_s:g} s") from None
        except asyncio.CancelledError:
            await asyncio.shield(work.cancel(reason))
            raise
        if response.status == TASK_STATUS_INPUT_REQUIRED:
            await work.cancel(reason)
        return response


@dataclass(frozen=True, slots=True)
class Work:
    """A task that stands for a call, asked for in the name of the caller.

    Attributes:
        task: What is asked; named by the call's key.
        token: The call's own grant, as the registry signed it: it lets this one task be run.
        channels: Connections.
        target: host:port of the agent.
    """

    task: TaskRequest
    token: bytes = field(repr=False)
    channels: Channels
    target: str

    async def run(self, timeout_s: float) -> TaskResponse:
        """Runs it, or attaches to it, and waits.

        Raises:
            MeshError: It was not accepted, or did not end in time.
        """
        stub = AgentServiceStub(self.channels.to(self.target, self.task.agent_id))
        response: TaskResponse = await channel.unary(stub.RunTask, self.task, timeout_s=timeout_s, grant=self.token)
        return response

    async def cancel(self, reason: str) -> None:
        """Takes it back; where that fails, also because the grant is too old by now, its own timeout ends it."""
        stub = TaskServiceStub(self.channels.to(self.target, self.task.agent_id))
        request = CancelTaskRequest(task_id=self.task.task_id, reason=reason)
        with contextlib.suppress(MeshError):
            await channel.unary(stub.CancelTask, request, timeout_s=CANCEL_S, grant=self.token)


def result_of(tool: str, agent_id: str, response: TaskResponse) -> Any:
    """Returns what a task came to.

    Raises:
        ToolFailedError: Nothing, or only a question.
    """
    if response.status == TASK_STATUS_COMPLETED:
        if response.HasField("output_data"):
            return json_format.MessageToDict(response.output_data)
        return response.output
    if response.status == TASK_STATUS_INPUT_REQUIRED:
        raise ToolFailedError(f"{tool}: {agent_id} asks a person, which a tool cannot wait for: submit a task instead")
    ending = TaskStatus.Name(response.status).removeprefix("TASK_STATUS_")
    why = f": {response.error.message}" if response.error.message else ""
    raise ToolFailedError(f"{tool}: the task of {agent_id} ended {ending}{why}", metadata={"task_id": response.task_id})


def agent_tool(tool: ToolOptions, options: AgentOptions, surroundings: Surroundings) -> AgentTool:
    """Makes a tool of a declaration.

    Raises:
        SetupError: It says that a task is pure, or what else its arguments are than a prompt.
    """
    if tool.effect == "pure":
        raise SetupError("effect: pure does not fit: a task has effects; a repeated key attaches to it: idempotent")
    if tool.input_schema is not None:
        raise SetupError("input_schema: leave it out: an agent takes a prompt")
    parts = contract_parts(tool, "idempotent", INPUT_SCHEMA, {})
    settings = surroundings.settings
    return AgentTool(
        **parts, agent_id=options.agent_id, options=options, registry=settings.registry, tls_dir=settings.tls_dir
    )
