"""Intake: a request from outside becomes a task, once; bad ones are refused with the field that is wrong."""

import hashlib
from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration

from meshwright.agents.authority import bound_call, check_reach, narrow
from meshwright.agents.budget import (
    DEFAULT_STEPS,
    DEFAULT_TOKENS,
    MAX_MICROS,
    MAX_STEPS,
    MAX_TOKENS,
    MAX_TOOL_CALLS,
    MIN_STEPS,
    MIN_TOKENS,
)
from meshwright.agents.task import NewTask, TaskName
from meshwright.agents.typed import ResultType
from meshwright.core.canonical import message_digest
from meshwright.core.errors import InvalidRequestError
from meshwright.core.grant import is_call
from meshwright.core.ids import AGENT_ID, CALLER_ID, TASK_ID, TOOL_NAME, root_of, uuid7
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_PARTIAL,
    BUDGET_ACTION_UNSPECIFIED,
    SESSION_POLICY_ENQUEUE,
    SESSION_POLICY_UNSPECIFIED,
    TASK_PRIORITY_NORMAL,
    TASK_PRIORITY_UNSPECIFIED,
    BudgetAction,
    SessionPolicy,
    TaskPriority,
    TaskRequest,
)

MAX_PROMPT_BYTES = 256 * 2**10
MAX_LABELS, MAX_LABEL_CHARS = 32, 1_024
MAX_TOOLS = 256
MAX_MODEL_CHARS = 256
DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S = 600, 86_400
NANOS = 1_000_000_000
RANKS = {number: name.removeprefix("TASK_PRIORITY_") for name, number in TaskPriority.items()}
"""Priorities as the queue knows them."""
ENUMS = {
    "on_budget_exceeded": ("BudgetAction", frozenset(BudgetAction.values())),
    "priority": ("TaskPriority", frozenset(TaskPriority.values())),
    "session_policy": ("SessionPolicy", frozenset(SessionPolicy.values())),
}


def checked_request(request: TaskRequest) -> None:
    """Refuses a request that is wrong as it stands.

    Raises:
        InvalidRequestError: Names every field that is wrong.
    """
    problems = dict(problems_of(request))
    if problems:
        named = ", ".join(f"{field} {problem}" for field, problem in problems.items())
        raise InvalidRequestError(f"the request is not valid: {named}", fields=problems)
    ResultType.of(request)


def problems_of(request: TaskRequest) -> Iterator[tuple[str, str]]:
    """Tells what is wrong, field by field."""
    size = len(request.prompt.encode())
    if not request.prompt.strip():
        yield "prompt", "is required"
    if size > MAX_PROMPT_BYTES:
        yield "prompt", f"has {size} bytes, at most {MAX_PROMPT_BYTES} are allowed"
    if request.agent_id and not AGENT_ID.fullmatch(request.agent_id):
        yield "agent_id", f"must be {AGENT_ID.words}"
    if request.session_id and not CALLER_ID.fullmatch(request.session_id):
        yield "session_id", f"must be {CALLER_ID.words}"
    yield from problems_of_limits(request)
    yield from problems_of_choices(request)


def problems_of_limits(request: TaskRequest) -> Iterator[tuple[str, str]]:
    """Tells what is wrong with budgets and time."""
    if not in_range(request.max_steps, MIN_STEPS, MAX_STEPS):
        yield "max_steps", f"must be {MIN_STEPS}..{MAX_STEPS}"
    if not in_range(request.token_budget, MIN_TOKENS, MAX_TOKENS):
        yield "token_budget", f"must be {MIN_TOKENS}..{MAX_TOKENS}"
    if not 0 <= request.cost_budget_micros <= MAX_MICROS:
        yield "cost_budget_micros", f"must be 0..{MAX_MICROS}"
    if not 0 <= request.max_tool_calls <= MAX_TOOL_CALLS:
        yield "max_tool_calls", f"must be 0..{MAX_TOOL_CALLS}"
    if request.HasField("timeout") and not fits(request.timeout):
        yield "timeout", f"must be 0.001..{MAX_TIMEOUT_S} s"


def problems_of_choices(request: TaskRequest) -> Iterator[tuple[str, str]]:
    """Tells what is wrong with labels, names and enums."""
    labels = request.metadata
    if len(labels) > MAX_LABELS:
        yield "metadata", f"at most {MAX_LABELS} labels"
    if any(len(name) + len(label) > MAX_LABEL_CHARS for name, label in labels.items()):
        yield "metadata", f"at most {MAX_LABEL_CHARS} characters each"
    if len(request.allowed_tools) > MAX_TOOLS:
        yield "allowed_tools", f"at most {MAX_TOOLS} names"
    if not all(map(TOOL_NAME.fullmatch, request.allowed_tools)):
        yield "allowed_tools", "holds what is no tool name"
    if len(request.model) > MAX_MODEL_CHARS:
        yield "model", f"at most {MAX_MODEL_CHARS} characters"
    for field, (kind, known) in ENUMS.items():
        if getattr(request, field) not in known:
            yield field, f"is no {kind}"


def fits(timeout: Duration) -> bool:
    """Whether a timeout is a duration, and within its range."""
    is_duration = timeout.seconds >= 0 and 0 <= timeout.nanos < NANOS
    return is_duration and timeout.ToMilliseconds() >= 1 and timeout.ToNanoseconds() <= MAX_TIMEOUT_S * NANOS


def in_range(value: int, least: int, most: int) -> bool:
    """Whether a limit is unset or within its range."""
    return value == 0 or least <= value <= most


def task_id_of(request: TaskRequest, idempotency_key: str, caller: Caller) -> str:
    """Returns the task's id: the caller's, its Idempotency-Key (hashed where it does not fit), or a new UUIDv7.

    Raises:
        InvalidRequestError: The id is malformed, belongs to a child without a grant, or differs from the key.
        PermissionDeniedError: It is not the id of the call whose grant this is.
    """
    key = idempotency_key
    if key and not CALLER_ID.fullmatch(key):
        key = hashlib.sha256(key.encode()).hexdigest()
    task_id = request.task_id
    if key and task_id and key != task_id:
        raise InvalidRequestError("task_id and Idempotency-Key differ", fields={"task_id": "send one of the two"})
    task_id = task_id or key or uuid7()
    parent = parent_of(caller)
    form = TASK_ID if parent else CALLER_ID
    if not form.fullmatch(task_id):
        raise InvalidRequestError(
            f"task_id must be {form.words}",
            fields={"task_id": f"must be {form.words}"},
        )
    check_reach(caller, task_id)
    if parent and root_of(task_id) != parent.root_task_id:
        raise InvalidRequestError("a child's id is <root>.<suffix>", fields={"task_id": "names another root"})
    return task_id


def parent_of(caller: Caller) -> Grant | None:
    """Returns the grant of the task that submits another one; None: it comes from outside, be it by a call's grant."""
    return None if caller.grant is None or is_call(caller.grant) else caller.grant


def new_task(request: TaskRequest, agent_id: str, idempotency_key: str, caller: Caller, trace: str = "") -> NewTask:
    """Makes the task that a request asks for, defaults filled in, as a part of the trace of a W3C trace context.

    Raises:
        InvalidRequestError: The request is wrong.
        MeshError: The parent, or the call, has nothing to give; see `authority.narrow` and `authority.bound_call`.
    """
    checked_request(request)
    name = TaskName(caller.tenant, caller.principal, task_id_of(request, idempotency_key, caller))
    filled = TaskRequest()
    filled.CopyFrom(request)
    filled.task_id = ""
    filled.agent_id = agent_id
    filled.max_steps = request.max_steps or DEFAULT_STEPS
    filled.token_budget = request.token_budget or DEFAULT_TOKENS
    if request.on_budget_exceeded == BUDGET_ACTION_UNSPECIFIED:
        filled.on_budget_exceeded = BUDGET_ACTION_PARTIAL
    if request.session_policy == SESSION_POLICY_UNSPECIFIED:
        filled.session_policy = SESSION_POLICY_ENQUEUE
    if request.priority == TASK_PRIORITY_UNSPECIFIED:
        filled.priority = TASK_PRIORITY_NORMAL
    if not request.HasField("timeout"):
        filled.timeout.seconds = DEFAULT_TIMEOUT_S
    asked = message_digest(filled)  # before it is narrowed: the same child asks alike when less is left
    parent = parent_of(caller)
    if parent:
        narrow(filled, parent)
    elif caller.grant:
        bound_call(filled, caller.grant)
    return NewTask(
        name=name,
        agent_id=agent_id,
        hash=asked,
        request=filled,
        timeout_ms=filled.timeout.ToMilliseconds(),
        parent_id=parent.task_id if parent else "",
        root_id=parent.root_task_id if parent else name.task_id,
        depth=parent.depth + 1 if parent else 0,
        trace=trace,
        rank=RANKS[filled.priority],
        scopes=tuple(caller.tool_scopes),
        ancestors=(*parent.ancestors, parent.agent_id) if parent else (),
    )
