"""Delegation: a call of `ask.AGENT` becomes a child task at that agent."""

import asyncio
import random
import time

import structlog

from meshwright.agents.agent import Agent
from meshwright.agents.authority import is_allowed
from meshwright.agents.budget import Allowance
from meshwright.agents.models.model import Call, ToolSpec
from meshwright.agents.run import Run
from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AgentNotFoundError,
    DepthExceededError,
    FencedError,
    GrantInvalidError,
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
)
from meshwright.core.grant import MAX_DEPTH
from meshwright.core.ids import child_id
from meshwright.gen.agents.v1.step_event_pb2 import (
    TOOL_OUTCOME_ERROR,
    Delegation,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import BUDGET_ACTION_DEGRADE, TaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard
from meshwright.registry.client import RegistryClient

log = structlog.get_logger("supervisor")
PREFIX = "ask."
SUBMIT_S = 5.0
RETRY_S = 0.2
PATIENCE_S = 10.0
"""How long a child is offered to an agent that is not there, for example since it restarts."""
PARAMETERS = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "minLength": 1, "description": "All that the agent needs to know"}},
    "required": ["prompt"],
    "additionalProperties": False,
}


class Supervisor:
    """Hands work to other agents.

    Args:
        agent: Whose delegates count.
        registry: Knows who is here.
        channels: Connections to them.
    """

    def __init__(self, agent: Agent, registry: RegistryClient, channels: Channels) -> None:
        self._registry = registry
        self._channels = channels
        self._delegates = {PREFIX + delegate.replace("-", "_"): delegate for delegate in agent.delegates}

    @property
    def names(self) -> frozenset[str]:
        """Tool names that mean a delegation."""
        return frozenset(self._delegates)

    async def specs(self, run: Run) -> list[ToolSpec]:
        """Returns the delegates that a run's model may choose from, with what they are good at."""
        if run.record.depth >= MAX_DEPTH:
            return []
        found = []
        for name, agent_id in self._delegates.items():
            if not is_allowed(name, run.request.allowed_tools):
                continue
            card = await self._card(agent_id)
            skills = f" Skills: {', '.join(card.skills)}." if card and card.skills else ""
            found.append(ToolSpec(name, (card.description if card else f"The agent {agent_id}.") + skills, PARAMETERS))
        return found

    async def _card(self, agent_id: str) -> AgentCard | None:
        try:
            return await self._registry.find(agent_id)
        except TimeoutError:  # the registry has not been reached yet
            return None

    def intent(self, run: Run, step: int, call: Call, allowance: Allowance) -> Delegation:
        """Writes a delegation before it is made; each child's share of the budget is fixed in it.

        Raises:
            InvalidRequestError: The call has no prompt.
            DepthExceededError: The tree would grow too deep.
            PermissionDeniedError: The task may not use it, or too little budget is left.
        """
        if not is_allowed(call.tool, run.request.allowed_tools):
            raise PermissionDeniedError(f"this task may not use {call.tool}")
        prompt = call.arguments.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise InvalidRequestError(f"{call.tool} needs a prompt", fields={"arguments/prompt": "is required"})
        if run.record.depth >= MAX_DEPTH:
            raise DepthExceededError(f"a task may have at most {MAX_DEPTH} tasks above it")
        delegation = Delegation(
            call_id=call.call_id,
            child_task_id=child_id(run.record.root_id or run.task_id, run.task_id, step, call.call_id),
            agent_id=self._delegates[call.tool],
        )
        allowance.grant(delegation)
        return delegation

    async def submit(self, run: Run, call: Call, delegation: Delegation) -> None:
        """Submits a child; a repetition attaches to it. A child that cannot be made is the call's outcome."""
        request = TaskRequest(
            task_id=delegation.child_task_id,
            agent_id=delegation.agent_id,
            prompt=call.arguments["prompt"],
            token_budget=delegation.granted_tokens,
            cost_budget_micros=delegation.granted_cost_micros,
            max_tool_calls=delegation.granted_tool_calls,
            timeout=run.request.timeout,
            allowed_tools=run.request.allowed_tools,
        )
        if run.request.on_budget_exceeded == BUDGET_ACTION_DEGRADE:  # who may ask or fail is the root alone
            request.on_budget_exceeded = BUDGET_ACTION_DEGRADE
        if call.call_id in run.submitted:
            return
        await run.feeds.attend(run.record.name)
        try:
            await self._offer(run, request)
        except FencedError:
            raise
        except MeshError as error:
            result = ToolResult(call_id=call.call_id, outcome=TOOL_OUTCOME_ERROR, error=error.to_status())
            await run.append(f"result:{run.state.step}:{call.call_id}", run.event(tool_result=result))
        run.submitted.add(call.call_id)

    async def _offer(self, run: Run, request: TaskRequest) -> None:
        patience = time.monotonic() + min(PATIENCE_S, run.seconds_left)
        while True:
            try:
                stub = TaskServiceStub(self._channels.to(await self._target(request.agent_id)))
                await channel.unary(stub.SubmitTask, request, timeout_s=SUBMIT_S, grant=run.token())
            except MeshError as error:
                may_pass = error.is_retryable or isinstance(error, AgentNotFoundError | GrantInvalidError)
                if not may_pass or time.monotonic() > patience:
                    raise
                log.info("child_waits", child=request.task_id, agent=request.agent_id, error=error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _target(self, agent_id: str) -> str:
        card = await self._card(agent_id)
        ready = [endpoint.target for endpoint in card.endpoints if not endpoint.draining] if card else []
        if not ready:
            raise AgentNotFoundError(f"agent {agent_id} is not here")
        return random.choice(ready)  # noqa: S311 - balancing, no secret
