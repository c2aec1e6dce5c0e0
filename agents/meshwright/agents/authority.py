"""Authority: who may give an agent a task, and how far a task's own reaches. Pure."""

import time
from collections.abc import Collection

from meshwright.core.errors import (
    DelegationCycleError,
    DepthExceededError,
    NotCallableError,
    PermissionDeniedError,
    TaskTimeoutError,
)
from meshwright.core.grant import CALL, MAX_DEPTH, is_call
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

OUTSIDE = "outside"
"""How an agent's list of callers names those that are no agents."""


def check_caller(agent_id: str, callable_by: Collection[str], caller: Caller) -> None:
    """Lets a caller pass that the agent takes tasks of; one that lists nobody takes them of everyone.

    Raises:
        NotCallableError: It does not.
        PermissionDeniedError: The caller is an agent that may not hand work to this one, or the host of a tool that is
            not this agent.
    """
    who = caller.grant.agent_id if caller.grant and not is_call(caller.grant) else OUTSIDE
    if callable_by and who not in callable_by:
        raise NotCallableError(f"{agent_id} takes no tasks from {who}: it lists {', '.join(sorted(callable_by))}")
    if caller.grant and agent_id not in caller.grant.delegates:
        raise PermissionDeniedError(f"{who} may not hand work to {agent_id}: it is not among its delegates")


def check_cycle(agent_id: str, caller: Caller, *, is_recursive: bool) -> None:
    """Lets a caller pass below whose root the agent has no task yet, and any caller of an agent that takes it again.

    Raises:
        DelegationCycleError: Work has come back to the agent.
    """
    if is_recursive or caller.grant is None or is_call(caller.grant):
        return
    above = (*caller.grant.ancestors, caller.grant.agent_id)
    if agent_id in above:
        chain = " -> ".join((*above, agent_id))
        raise DelegationCycleError(f"{agent_id} waits for this very work ({chain}): do it without that agent")


def check_reach(caller: Caller, task_id: str) -> None:
    """Lets whoever holds the grant of one call from outside reach the one task that stands for it.

    The host of a tool holds such a grant: it acts in its caller's name, but is not to see what else the caller does.

    Raises:
        PermissionDeniedError: It is another task, or the tool is no agent.
    """
    grant = caller.grant
    if grant and is_call(grant) and not (grant.delegates and grant.task_id == f"{CALL}{task_id}"):
        raise PermissionDeniedError(
            "the grant of a call reaches the one task that bears the call's key, where the tool is an agent"
        )


def bound_call(request: TaskRequest, grant: Grant) -> None:
    """Bounds the root task of a call from outside: it takes no part in a session, and ends in the call's time.

    Raises:
        PermissionDeniedError: It asks for a session: what was said there is not the host's to read.
        TaskTimeoutError: The call is out of time.
    """
    if request.session_id:
        raise PermissionDeniedError("a call takes part in no session: submit a task instead")
    left_ms = grant.deadline.ToMilliseconds() - int(time.time() * 1000)
    if left_ms <= 0:
        raise TaskTimeoutError("the call is out of time: nothing is begun any more")
    request.timeout.FromMilliseconds(min(request.timeout.ToMilliseconds(), left_ms))


def narrow(request: TaskRequest, grant: Grant) -> None:
    """Bounds a child's request by what its parent has: tokens, money and tools, however much it asks for.

    What the parent has left may be less when the same child is asked for again: then it is known, and attached to. Its
    time is bounded where it is accepted, by its parent's record.

    Raises:
        DepthExceededError: The parent may have no more children below it.
        PermissionDeniedError: The parent may use none of the tools that are asked for.
    """
    if grant.depth >= MAX_DEPTH:
        raise DepthExceededError(f"a task may have at most {MAX_DEPTH} tasks above it")
    request.token_budget = min(request.token_budget, grant.token_budget)
    for name in ("cost_budget_micros", "max_tool_calls"):  # 0: no limit of its own
        limits = [limit for limit in (getattr(request, name), getattr(grant, name)) if limit]
        setattr(request, name, min(limits, default=0))
    if grant.allowed_tools:
        allowed = [name for name in request.allowed_tools or grant.allowed_tools if name in grant.allowed_tools]
        if not allowed:
            raise PermissionDeniedError("the parent may use none of the tools that are asked for")
        request.ClearField("allowed_tools")
        request.allowed_tools.extend(allowed)


def is_allowed(name: str, allowed: Collection[str]) -> bool:
    """Whether a task may use a tool, or an agent as `ask.AGENT`; where its request names none, it may use all."""
    return not allowed or name in allowed
