"""A task: its name in the store, its record, its events, and how it looks from outside."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.agents.account import NOTHING, counters_of_embedding, counters_of_reservation, counters_of_storage
from meshwright.agents.shared_limits import SharedLimits
from meshwright.core.codec import lost
from meshwright.core.ids import root_of
from meshwright.core.store import partition_of, reference
from meshwright.gen.agents.v1.step_event_pb2 import ChildStep, ContextCompacted, LlmCall, StepEvent, ToolResult
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TASK_STATUS_INPUT_REQUIRED,
    TASK_STATUS_PENDING,
    TASK_STATUS_RUNNING,
    TaskRequest,
    TaskResponse,
    TaskStatus,
    Usage,
)

M = TypeVar("M", bound=Message)
STATUS: dict[str, TaskStatus.ValueType] = {
    "PENDING": TASK_STATUS_PENDING,
    "RUNNING": TASK_STATUS_RUNNING,
    "PARKED": TASK_STATUS_RUNNING,
    "COMPLETED": TASK_STATUS_COMPLETED,
    "FAILED": TASK_STATUS_FAILED,
    "CANCELLED": TASK_STATUS_CANCELLED,
}
TERMINAL = frozenset({TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TASK_STATUS_CANCELLED})
TERMINAL_STATES = frozenset(state for state, status in STATUS.items() if status in TERMINAL)
LONGEST_MS = 2**32 - 1
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
SAVED = ("saved_cost_micros", "saved_tokens")
OF_MODELS = frozenset({*TOKENS, *SAVED, "model_calls", "cost_micros"})
"""Counters that an answer of a model may add to."""
COUNTERS = (
    *TOKENS,
    "model_calls",
    "tool_calls",
    "cost_micros",
    "estimated_cost_micros",
    *SAVED,
    "embedding_tokens",
    "stored_bytes",
)


@dataclass(frozen=True, slots=True)
class TaskName:
    """Whose task it is and which."""

    tenant: str
    principal: str
    task_id: str
    ref: str = field(init=False, compare=False, repr=False)
    """The name as it stands in keys."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref", reference(self.tenant, self.principal, self.task_id))

    def partition(self, partitions: int) -> int:
        """The partition that holds the task, its root and all their descendants."""
        return partition_of(self.tenant, root_of(self.task_id), partitions)

    def sibling(self, task_id: str) -> "TaskName":
        """Names another task of the same holder."""
        return TaskName(self.tenant, self.principal, task_id)


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task about to be accepted: all that its record will say."""

    name: TaskName
    agent_id: str
    hash: str
    request: TaskRequest
    timeout_ms: int
    parent_id: str = ""
    root_id: str = ""
    depth: int = 0
    call_id: str = ""
    trace: str = ""
    rank: str = "NORMAL"
    scopes: tuple[str, ...] = ()
    """Of whoever asked for the root task, sorted."""
    ancestors: tuple[str, ...] = ()
    """Agents of the tasks above, the root's first."""
    shared: SharedLimits = field(default_factory=SharedLimits)
    """Budgets that it shares with other trees; a child has its root's."""

    @property
    def session_id(self) -> str:
        """The conversation that it takes a turn in; those of children are their parents' affair."""
        return "" if self.parent_id else self.request.session_id


@dataclass(frozen=True, slots=True)
class Record:
    """A task's record as it was read; times are store time in milliseconds, 0: not yet."""

    name: TaskName
    state: str
    agent_id: str
    request: TaskRequest
    parent_id: str
    root_id: str
    depth: int
    trace: str
    created: int
    started: int
    ended: int
    deadline: int
    expire: int
    attempt: int
    barren: int
    sequence: int
    steps: int
    cancel: str
    hash: str = ""
    asks: int = 0
    is_poison: bool = False
    usage: Usage = field(default_factory=Usage)
    now: int = 0
    scopes: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    shared: SharedLimits = field(default_factory=SharedLimits)

    @classmethod
    def parse(cls, name: TaskName, fields: Mapping[bytes, bytes], now: int) -> "Record":
        """Reads the store's hash; `now` is the store's time at that moment.

        Raises:
            DataLossError: It is not as it was written.
        """
        try:
            record = cls._parsed(name, fields, now)
        except (LookupError, ValueError, TypeError):
            raise lost(f"the record of task {name.task_id} is not as it was written") from None
        if record.state not in STATUS:
            raise lost(f"the record of task {name.task_id} names no state that a task has")
        return record

    @classmethod
    def _parsed(cls, name: TaskName, fields: Mapping[bytes, bytes], now: int) -> "Record":
        def text(key: str) -> str:
            return fields.get(key.encode(), b"").decode()

        def number(key: str) -> int:
            return int(fields.get(key.encode(), 0))

        return cls(
            name=name,
            state=text("state"),
            agent_id=text("agent"),
            request=parsed(TaskRequest, fields[b"request"], f"the request of task {name.task_id}"),
            parent_id=text("parent"),
            root_id=text("root"),
            depth=number("depth"),
            trace=text("trace"),
            created=number("created"),
            started=number("started"),
            ended=number("ended"),
            deadline=number("deadline"),
            expire=number("expire"),
            attempt=number("attempt"),
            barren=number("barren"),
            sequence=number("seq"),
            steps=number("steps"),
            cancel=text("cancel"),
            hash=text("hash"),
            asks=number("asks"),
            is_poison=b"poison" in fields,
            usage=Usage(**{key: number(key) for key in COUNTERS}),
            now=now,
            scopes=tuple(json.loads(text("scopes") or "[]")),
            ancestors=tuple(text("ancestors").split()),
            shared=SharedLimits.parse(text("shared")),
        )

    @classmethod
    def fresh(cls, task: "NewTask", now: int, shared: SharedLimits) -> "Record":
        """Builds the record of a task that was accepted and claimed just now, without reading it.

        Args:
            task: As it was accepted.
            now: When, store time.
            shared: What its tree shares with others.
        """
        return cls(
            name=task.name,
            state="RUNNING",
            agent_id=task.agent_id,
            request=task.request,
            parent_id=task.parent_id,
            root_id=task.root_id,
            depth=task.depth,
            trace=task.trace,
            created=now,
            started=now,
            ended=0,
            deadline=now + task.timeout_ms,
            expire=0,
            attempt=1,
            barren=1,
            sequence=0,
            steps=0,
            cancel="",
            hash=task.hash,
            now=now,
            scopes=task.scopes,
            ancestors=task.ancestors,
            shared=shared,
        )

    @property
    def session_id(self) -> str:
        """The conversation that it takes a turn in; those of children are their parents' affair."""
        return "" if self.parent_id else self.request.session_id

    @property
    def status(self) -> TaskStatus.ValueType:
        """The status that the contract knows: a parked task that asks waits for a person."""
        if self.state == "PARKED" and self.asks:
            return TASK_STATUS_INPUT_REQUIRED
        return STATUS[self.state]

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended."""
        return self.status in TERMINAL

    def response(self) -> TaskResponse:
        """Builds the task as it stands."""
        end = self.ended or self.now
        response = TaskResponse(
            task_id=self.name.task_id,
            status=self.status,
            steps_used=self.steps,
            tokens_used=self.usage.input_tokens + self.usage.output_tokens,
            tool_calls=self.usage.tool_calls,
            duration_ms=lasting(end - self.created),
            usage=self.usage,
            last_sequence=self.sequence,
            attempt=self.attempt,
            agent_id=self.agent_id,
            session_id=self.request.session_id,
            parent_task_id=self.parent_id,
            trace_id=self.trace.partition("-")[2].partition("-")[0],
            metadata=self.request.metadata,
        )
        for target, at in (
            (response.create_time, self.created),
            (response.start_time, self.started),
            (response.end_time, self.ended),
            (response.expire_time, self.expire),
        ):
            if at:
                target.FromMilliseconds(at)
        return response


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a journal.

    Attributes:
        sequence: 1, 2, 3 ...; 0 for a passing frame.
        time_ms: Store time.
        path: `child:sequence,...`, outermost first, where the event is a descendant's; else empty.
        payload: The serialized StepEvent, without what the entry itself says.
    """

    sequence: int
    time_ms: int
    path: str
    payload: bytes

    def event(self, task_id: str) -> StepEvent:
        """Builds the event as the watchers of `task_id` see it.

        Raises:
            DataLossError: The entry is not as it was written.
        """
        time = Timestamp()
        time.FromMilliseconds(self.time_ms)
        event = parsed(StepEvent, self.payload, f"entry {self.sequence} in the journal of task {task_id}")
        for part in reversed(self.path.split(",") if self.path else ()):
            child, _, sequence = part.partition(":")
            stamp(event, child, int(sequence), time)
            event = StepEvent(child=ChildStep(child_task_id=child, event=event))
        stamp(event, task_id, self.sequence, time)
        return event


def parsed(kind: type[M], content: bytes, what: str) -> M:
    """Reads a message that stood in the store.

    Args:
        kind: Its type.
        content: As it was stored, opened where it was sealed.
        what: What it is, for the error.

    Raises:
        DataLossError: It is not as it was written.
    """
    try:
        return kind.FromString(content)
    except DecodeError:
        raise lost(f"{what} is not as it was written") from None


def stamp(event: StepEvent, task_id: str, sequence: int, time: Timestamp) -> None:
    """Adds what only the store knows: whose event it is, its number and its time."""
    event.task_id = task_id
    event.sequence = sequence
    event.time.CopyFrom(time)
    if event.HasField("result") and event.result.HasField("create_time"):
        result = event.result
        result.last_sequence = sequence
        result.end_time.CopyFrom(time)
        result.duration_ms = lasting(time.ToMilliseconds() - result.create_time.ToMilliseconds())


def lasting(milliseconds: int) -> int:
    """Returns a duration as the contract's 32 bits hold it: a task may have lain in a store that was off for long."""
    return min(max(0, milliseconds), LONGEST_MS)


def leaf(event: StepEvent) -> StepEvent:
    """Returns the event inside of all child wrappings."""
    while event.HasField("child"):
        event = event.child.event
    return event


def counters_of(event: StepEvent) -> Mapping[str, int]:
    """Returns what an event adds to its task's counters, a descendant's event to its ancestors' likewise.

    Zeros are left out.
    """
    inner = leaf(event)
    match inner.WhichOneof("event"):
        case "llm_call":
            answer = inner.llm_call
            counters = freed(counters_of_usage(answer.usage), answer)
            counters["steps"] = 1
            if not answer.cached:
                counters["model_calls"] = 1
            return with_embedding(counters, answer)
        case "context_compacted":
            return freed(counters_of_usage(inner.context_compacted.usage), inner.context_compacted)
        case "tool_result":
            result = inner.tool_result
            counters = {"tool_calls": 1, "cost_micros": result.cost_micros} if result.cost_micros else {"tool_calls": 1}
            return with_embedding(freed(counters, result), result)
        case "tool_call":
            return {"reserved_micros": micros} if (micros := inner.tool_call.cost_micros) else NOTHING
        case "reservation":
            return counters_of_reservation(inner.reservation)
        case kind:
            return counters_of_storage(inner.result) if kind == "result" else NOTHING


def counters_of_usage(usage: Usage) -> dict[str, int]:
    """Returns what a model call's usage adds to counters."""
    return {field.name: value for field, value in usage.ListFields() if field.name in OF_MODELS}


def with_embedding(counters: dict[str, int], event: LlmCall | ToolResult) -> dict[str, int]:
    """Adds to counters, in place, what embedding text for an event has taken."""
    return summed(counters, counters_of_embedding(event)) if event.HasField("embedding") else counters


def freed(counters: dict[str, int], event: LlmCall | ToolResult | ContextCompacted) -> dict[str, int]:
    """Adds to counters, in place, what settling the reservation of an event's call frees."""
    if event.reserved_micros:
        counters["reserved_micros"] = -event.reserved_micros
    return counters


def counted(events: Sequence[StepEvent]) -> dict[str, int]:
    """Adds up the counters of several events."""
    total: dict[str, int] = {}
    for event in events:
        summed(total, counters_of(event))
    return total


def summed(total: dict[str, int], counters: Mapping[str, int]) -> dict[str, int]:
    """Adds counters to others, in place."""
    for name, value in counters.items():
        total[name] = total.get(name, 0) + value
    return total
