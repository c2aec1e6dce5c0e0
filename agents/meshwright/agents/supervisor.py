"""Delegation: a call of `ask.AGENT` becomes a child task at that agent."""

import asyncio
import random
import time
from collections.abc import Sequence

import structlog

from meshwright.agents.agent import Agent, ChildFailure
from meshwright.agents.authority import is_allowed
from meshwright.agents.budget import Allowance
from meshwright.agents.models.model import Call, ToolSpec
from meshwright.agents.run import Run
from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import (
    AgentNotFoundError,
    DepthExceededError,
    FanOutExceededError,
    FencedError,
    GrantInvalidError,
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
    TaskCancelledError,
)
from meshwright.core.grant import MAX_DEPTH
from meshwright.core.ids import child_id
from meshwright.core.recurring import Recurring
from meshwright.gen.agents.v1.step_event_pb2 import (
    CHILD_FAILURE_ACTION_OTHER,
    CHILD_FAILURE_ACTION_RETRY,
    CHILD_FAILURE_ACTION_TELL,
    TOOL_OUTCOME_ERROR,
    ChildFailureAction,
    Delegation,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import BUDGET_ACTION_DEGRADE, TaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard
from meshwright.registry.client import RegistryClient

log = structlog.get_logger("supervisor")
GRANTED = ("granted_tokens", "granted_cost_micros", "granted_tool_calls")
PREFIX = "ask."
SUBMIT_S = 5.0
RETRY_S = 0.2
PATIENCE_S = 10.0
"""How long a child is offered to an agent that is not there, for example since it restarts."""
SECOND = 2
"""Which child of its call one is that takes the place of another."""
ACTIONS: dict[ChildFailure, ChildFailureAction.ValueType] = {
    "tell": CHILD_FAILURE_ACTION_TELL,
    "retry": CHILD_FAILURE_ACTION_RETRY,
    "other": CHILD_FAILURE_ACTION_OTHER,
}
PARAMETERS = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "minLength": 1, "description": "All that the agent needs to know"}},
    "required": ["prompt"],
    "additionalProperties": False,
}


class Supervisor:
    """Hands work to other agents.

    Args:
        agent: Whose delegates and limits count.
        registry: Knows who is here.
        channels: Connections to them.
    """

    def __init__(self, agent: Agent, registry: RegistryClient, channels: Channels) -> None:
        self._agent = agent
        self._registry = registry
        self._channels = channels
        self._delegates = {PREFIX + delegate.replace("-", "_"): delegate for delegate in agent.delegates}
        self._skills: dict[str, frozenset[str]] = {}

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
            card = await self._card(agent_id)
            if not is_allowed(name, run.request.allowed_tools) or (card and is_cycle(run, card)):
                continue
            skills = f" Skills: {', '.join(card.skills)}." if card and card.skills else ""
            found.append(ToolSpec(name, (card.description if card else f"The agent {agent_id}.") + skills, PARAMETERS))
        return found

    async def _card(self, agent_id: str) -> AgentCard | None:
        try:
            card = await self._registry.find(agent_id)
        except TimeoutError:  # the registry has not been reached yet
            return None
        if card:
            self._skills[agent_id] = frozenset(skill.casefold() for skill in card.skills)
        return card

    def admitted(self, run: Run, calls: Sequence[Call]) -> frozenset[str]:
        """Returns the ids of those calls of an answer that may become children; the others are too many."""
        asked = [call.call_id for call in calls if call.tool in self._delegates]
        left = max(0, self._agent.max_children - run.state.delegations)
        return frozenset(asked[: min(left, self._agent.max_children_at_once)])

    def intent(self, run: Run, step: int, call: Call, children: frozenset[str], allowance: Allowance) -> Delegation:
        """Writes a delegation before it is made; each child's share of the budget is fixed in it.

        Args:
            run: The parent.
            step: The step that asks for it.
            call: What the model wrote.
            children: Calls of the step that may become children, see `admitted`.
            allowance: What the calls of the answer may take.

        Raises:
            InvalidRequestError: The call has no prompt.
            DepthExceededError: The tree would grow too deep.
            FanOutExceededError: The tree would grow too wide.
            PermissionDeniedError: The task may not use it, or too little budget is left.
        """
        if not is_allowed(call.tool, run.request.allowed_tools):
            raise PermissionDeniedError(f"this task may not use {call.tool}")
        prompt = call.arguments.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise InvalidRequestError(f"{call.tool} needs a prompt", fields={"arguments/prompt": "is required"})
        if run.record.depth >= MAX_DEPTH:
            raise DepthExceededError(f"a task may have at most {MAX_DEPTH} tasks above it")
        if call.call_id not in children:
            raise self._too_many(run, len(children))
        delegation = Delegation(
            call_id=call.call_id,
            child_task_id=child_id(run.record.root_id or run.task_id, run.task_id, step, call.call_id),
            agent_id=self._delegates[call.tool],
            on_failure=ACTIONS[self._agent.on_child_failure],
        )
        allowance.grant(delegation)
        return delegation

    def _too_many(self, run: Run, admitted: int) -> FanOutExceededError:
        at_once, most = self._agent.max_children_at_once, self._agent.max_children
        if run.state.delegations + admitted < most:
            return FanOutExceededError(f"at most {at_once} tasks are handed out at once: ask for this one afterwards")
        return FanOutExceededError(f"a task hands out at most {most} tasks: go on with what they have brought")

    async def submit(self, run: Run, call: Call, delegation: Delegation) -> None:
        """Submits a child; a repetition attaches to it. One that cannot be made has failed."""
        if delegation.child_task_id in run.submitted:
            return
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
        await run.feeds.attend(run.record.name)
        try:
            await self._offer(run, request)
        except FencedError:
            raise
        except MeshError as error:  # the same agent was asked long enough
            is_other_next = delegation.on_failure == CHILD_FAILURE_ACTION_OTHER
            may_help = is_other_next and not isinstance(error, TaskCancelledError)
            await self._fall_back(run, call, error, await self._second(run, delegation) if may_help else None)
        run.submitted.add(delegation.child_task_id)

    async def replace(self, run: Run, call: Call) -> None:
        """Gives a call whose child failed another one, as was journaled; where there is none, it has failed."""
        delegation = run.state.intents[call.call_id]
        assert isinstance(delegation, Delegation)
        error = MeshError.from_status(run.state.failed[call.call_id].error)
        await self._fall_back(run, call, error, await self._second(run, delegation))

    async def _fall_back(self, run: Run, call: Call, error: MeshError, second: Delegation | None) -> None:
        step = run.state.step
        if second is None:
            result = ToolResult(call_id=call.call_id, outcome=TOOL_OUTCOME_ERROR, error=error.to_status())
            await run.append(f"result:{step}:{call.call_id}", run.event(tool_result=result))
            return
        log.info("child_replaced", child=second.replaces_task_id, agent=second.agent_id, error=error.message)
        await run.append(f"second:{step}:{call.call_id}", run.event(delegation=second))
        await self.submit(run, call, second)

    async def _second(self, run: Run, first: Delegation) -> Delegation | None:
        """Writes the delegation that takes the place of a failed one; None: nobody is there, or too little is left."""
        agent_id = first.agent_id
        if first.on_failure == CHILD_FAILURE_ACTION_OTHER:
            agent_id = await self._other(run, agent_id)
        open_children = {call.call_id for call in run.state.children} | {first.call_id}
        if not agent_id or run.state.delegations >= self._agent.max_children:
            return None
        root = run.record.root_id or run.task_id
        second = Delegation(
            call_id=first.call_id,
            child_task_id=child_id(root, run.task_id, run.state.step, f"{first.call_id}#{SECOND}"),
            agent_id=agent_id,
            on_failure=CHILD_FAILURE_ACTION_TELL,
            replaces_task_id=first.child_task_id,
        )
        try:
            run.budget.allowance(run.state, len(open_children), 0, 0).grant(second)
        except PermissionDeniedError:
            return None
        for name in GRANTED:
            setattr(second, name, min(getattr(first, name), getattr(second, name)))
        return second

    async def _other(self, run: Run, failed: str) -> str:
        """Returns the delegate that has most skills in common with one that failed; empty: there is none."""
        best, most = "", 0
        for name, agent_id in self._delegates.items():
            card = await self._card(agent_id)
            if agent_id == failed or card is None or not self._may_ask(run, name, card):
                continue
            common = len(self._skills[agent_id] & self._skills.get(failed, frozenset()))
            if common > most:
                best, most = agent_id, common
        return best

    def _may_ask(self, run: Run, name: str, card: AgentCard) -> bool:
        is_open = not card.callable_by or self._agent.name in card.callable_by
        return is_open and is_allowed(name, run.request.allowed_tools) and bool(ready(card)) and not is_cycle(run, card)

    async def _offer(self, run: Run, request: TaskRequest) -> None:
        patience = time.monotonic() + min(PATIENCE_S, run.seconds_left)
        failing = Recurring()
        while True:
            try:
                target = await self._target(request.agent_id)
                stub = TaskServiceStub(self._channels.to(target, request.agent_id))
                await channel.unary(stub.SubmitTask, request, timeout_s=SUBMIT_S, grant=run.token())
            except MeshError as error:
                may_pass = error.is_retryable or isinstance(error, AgentNotFoundError | GrantInvalidError)
                if not may_pass or time.monotonic() > patience:
                    raise
                if failing.is_news():
                    log.info("child_waits", child=request.task_id, agent=request.agent_id, error=error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _target(self, agent_id: str) -> str:
        card = await self._card(agent_id)
        targets = ready(card) if card else []
        if not targets:
            raise AgentNotFoundError(f"agent {agent_id} is not here")
        return random.choice(targets)  # noqa: S311 - balancing, no secret


def ready(card: AgentCard) -> list[str]:
    """Returns where an agent takes tasks."""
    return [endpoint.target for endpoint in card.endpoints if not endpoint.draining]


def is_cycle(run: Run, card: AgentCard) -> bool:
    """Whether an agent is above its own new task, and does not take it: it would refuse."""
    return not card.recursive and card.agent_id in (*run.record.ancestors, run.record.agent_id)
