"""The tree of a task as its journal tells it: models, tools, people and children, each with time and money."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_FELL_BACK,
    NOTICE_KIND_PARKED,
    NOTICE_KIND_RESUMED,
    NOTICE_KIND_RETRIED,
    NOTICE_KIND_TAKEN_OVER,
    NOTICE_KIND_VERSION_CHANGED,
    RESERVATION_STATE_CHARGED,
    LlmCall,
    StepEvent,
    ToolOutcome,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import FinishReason, TaskResponse, TaskStatus, Usage

HANDED_BACK = "handed back"


@dataclass(slots=True)
class Node:
    """Something that took time.

    Attributes:
        kind: `task`, `model`, `tool`, `person`, `summary`, `takeover` or `handover`.
        name: The agent, the model, the tool with its version, or which attempt goes on after a takeover or handover.
        node_id: The task's, call's or question's id; may be empty.
        start_ms: When it began, Unix time.
        end_ms: When it ended; None: it has not.
        tokens: Read and written; of a task with its children.
        cost_micros: In millionths of a US dollar; of a task with its children.
        status: How it ended, in lower case; empty: it has not.
        retries: How often it was tried again.
        takeovers: How often another worker went on with it.
        notes: What else is worth a word.
        below: What it consisted of, in the order in which it began.
    """

    kind: str
    name: str
    node_id: str = ""
    start_ms: int = 0
    end_ms: int | None = None
    tokens: int = 0
    cost_micros: int = 0
    status: str = ""
    retries: int = 0
    takeovers: int = 0
    notes: list[str] = field(default_factory=list)
    below: "list[Node]" = field(default_factory=list)

    @property
    def duration_ms(self) -> int | None:
        """How long it took; None: it has not ended."""
        return None if self.end_ms is None else max(0, self.end_ms - self.start_ms)

    def told(self, origin_ms: int) -> dict[str, Any]:
        """Returns it as JSON data; times count from `origin_ms`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "id": self.node_id,
            "start_ms": self.start_ms - origin_ms,
            "duration_ms": self.duration_ms,
            "tokens": self.tokens,
            "cost_micros": self.cost_micros,
            "status": self.status,
            "retries": self.retries,
            "takeovers": self.takeovers,
            "notes": self.notes,
            "children": [node.told(origin_ms) for node in self.below],
        }


class Tree:
    """Grows with the events of a task.

    Args:
        task: As it stands: says when it was accepted, and by whom it is done.
    """

    def __init__(self, task: TaskResponse) -> None:
        self.root = Node("task", task.agent_id, task.task_id, task.create_time.ToMilliseconds())
        self._tasks = {task.task_id: self.root}
        self._open: dict[tuple[str, str], Node] = {}
        self._planned: dict[tuple[str, str], str] = {}
        self._retries: dict[str, int] = {}
        self._fallen: set[str] = set()
        self._parked: set[str] = set()
        self._written: dict[str, int] = {}
        self._takes = {
            "started": self._started,
            "llm_call": self._answered,
            "tool_call": self._called,
            "tool_result": self._returned,
            "delegation": self._delegated,
            "notice": self._noted,
            "input_requested": self._asked,
            "input_resolved": self._resolved,
            "context_compacted": self._compacted,
            "reservation": self._reserved,
            "result": self._ended,
            "gap": self._missed,
        }

    def add(self, event: StepEvent) -> None:
        """Takes in the next event; one of a child goes to the child's branch."""
        journals = [event.task_id]
        while event.HasField("child"):
            self._branch(event)
            event = event.child.event
            journals.append(event.task_id)
        take = self._takes.get(event.WhichOneof("event") or "")
        if take and event.task_id in self._tasks:
            take(event, self._tasks[event.task_id])
        if event.sequence:  # a child's entry is one of its parents' journals, too: they were not silent
            self._written |= dict.fromkeys(journals, time_of(event))

    def close(self) -> None:
        """Adds up what tasks have used that have not ended; their children have it in their own sums."""
        for node in reversed([*nodes(self.root)]):
            if node.kind == "task" and node.end_ms is None:
                node.tokens = sum(one.tokens for one in node.below)
                node.cost_micros = sum(one.cost_micros for one in node.below)

    def _branch(self, event: StepEvent) -> None:
        child_id = event.child.child_task_id
        if child_id not in self._tasks and event.task_id in self._tasks:
            self._tasks[child_id] = Node("task", "", child_id, time_of(event))
            self._tasks[event.task_id].below.append(self._tasks[child_id])

    def _started(self, event: StepEvent, task: Node) -> None:
        task.name = event.started.agent_id
        if event.attempt > 1:  # workers before were lost without a word: what they took is in it, and so is the queue
            self._lost(event, task, task.start_ms)

    def _answered(self, event: StepEvent, task: Node) -> None:
        call = event.llm_call
        end = time_of(event)
        model = Node("model", call.model, "", end - call.latency_ms, end, status=call.stop_reason)
        model.tokens, model.cost_micros = tokens_of(call.usage), cost_of(call)
        self._planned |= {(event.task_id, planned.call_id): planned.tool for planned in call.planned_calls}
        model.retries = self._retries.pop(event.task_id, 0)
        model.notes += ["from the cache"] if call.cached else []
        if event.task_id in self._fallen:
            self._fallen.discard(event.task_id)
            model.notes.append("fell back")
        task.below.append(model)

    def _called(self, event: StepEvent, task: Node) -> None:
        call = event.tool_call
        known = self._open.get((event.task_id, call.call_id))
        if known:  # a person had it run again
            known.retries += 1
            return
        node = Node("tool", f"{call.tool}@{call.version}", call.call_id, time_of(event))
        self._open[event.task_id, call.call_id] = node
        task.below.append(node)

    def _returned(self, event: StepEvent, task: Node) -> None:
        result, end = event.tool_result, time_of(event)
        node = self._open.pop((event.task_id, result.call_id), None)
        if node is None:
            name = self._planned.get((event.task_id, result.call_id), "")
            node = Node("tool", name, result.call_id, end)
            task.below.append(node)
        node.start_ms = max(node.start_ms, end - result.latency_ms)
        node.end_ms, node.cost_micros = end, node.cost_micros + cost_of(result)
        node.status = ToolOutcome.Name(result.outcome).removeprefix("TOOL_OUTCOME_").lower()
        node.notes += [MeshError.from_status(result.error).reason] if result.HasField("error") else []
        node.notes += ["replayed"] if result.replayed else []

    def _delegated(self, event: StepEvent, task: Node) -> None:
        asked = event.delegation
        child = Node("task", asked.agent_id, asked.child_task_id, time_of(event))
        child.notes += ["in place of one that failed"] if asked.replaces_task_id else []
        self._tasks[asked.child_task_id] = child
        task.below.append(child)

    def _noted(self, event: StepEvent, task: Node) -> None:
        kind = event.notice.kind
        if kind == NOTICE_KIND_TAKEN_OVER:
            self._lost(event, task, self._written.get(event.task_id))
        elif kind == NOTICE_KIND_RETRIED:
            self._retries[event.task_id] = self._retries.get(event.task_id, 0) + 1
        elif kind == NOTICE_KIND_FELL_BACK:
            self._fallen.add(event.task_id)
        else:
            self._changed_hands(event, task)

    def _changed_hands(self, event: StepEvent, task: Node) -> None:
        """Notes that a task waits, goes on, or goes on with another version; what goes on unparked was handed back."""
        kind = event.notice.kind
        if kind == NOTICE_KIND_PARKED:
            self._parked.add(event.task_id)
        elif kind == NOTICE_KIND_VERSION_CHANGED:
            task.notes.append(event.notice.detail)
        elif kind == NOTICE_KIND_RESUMED and event.task_id in self._parked:
            self._parked.discard(event.task_id)
        elif kind == NOTICE_KIND_RESUMED:
            task.notes += [] if HANDED_BACK in task.notes else [HANDED_BACK]
            since_ms, name = self._written.get(event.task_id, task.start_ms), f"attempt {event.attempt}"
            task.below.append(Node("handover", name, "", since_ms, time_of(event), status=HANDED_BACK))

    def _lost(self, event: StepEvent, task: Node, since_ms: int | None) -> None:
        """Adds the time from a lost worker's last entry, None where nobody knows it, to the claim of the next one."""
        task.takeovers += 1
        self._parked.discard(event.task_id)
        if since_ms is not None:
            task.below.append(
                Node("takeover", f"attempt {event.attempt}", "", since_ms, time_of(event), status="worker lost")
            )

    def _asked(self, event: StepEvent, task: Node) -> None:
        pending = event.input_requested
        node = Node("person", pending.tool or "asked", pending.input_id, time_of(event))
        self._open[event.task_id, pending.input_id] = node
        task.below.append(node)

    def _resolved(self, event: StepEvent, _task: Node) -> None:
        if node := self._open.pop((event.task_id, event.input_resolved.input_id), None):
            node.end_ms, node.status = time_of(event), "decided"

    def _compacted(self, event: StepEvent, task: Node) -> None:
        compacted, now = event.context_compacted, time_of(event)
        if compacted.HasField("usage"):
            node = Node("summary", compacted.model, "", now, now, tokens_of(compacted.usage))
            node.cost_micros = compacted.usage.cost_micros
            task.below.append(node)

    def _reserved(self, event: StepEvent, task: Node) -> None:
        reservation, now = event.reservation, time_of(event)
        if reservation.state == RESERVATION_STATE_CHARGED:
            lost = Node("model", reservation.model, "", now, now, 0, reservation.cost_micros, "lost")
            task.below.append(lost)

    def _ended(self, event: StepEvent, task: Node) -> None:
        result = event.result
        task.end_ms, task.tokens, task.cost_micros = time_of(event), result.tokens_used, result.usage.cost_micros
        task.status = TaskStatus.Name(result.status).removeprefix("TASK_STATUS_").lower()
        reason = FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_").lower()
        if result.HasField("error"):
            task.notes.append(MeshError.from_status(result.error).reason)
        elif reason != "stop":
            task.notes.append(reason.replace("_", " "))
        if retries := self._retries.pop(event.task_id, 0):
            task.notes.append(f"its last model call was tried {retries + 1} times")

    def _missed(self, event: StepEvent, task: Node) -> None:
        gap = event.gap
        self._written.clear()
        self._parked |= self._tasks.keys()  # whoever goes on next may have waited
        task.notes.append(f"events {gap.from_sequence} to {gap.to_sequence} are gone")


def nodes(node: Node) -> Iterator[Node]:
    """Yields a node and all below it, each before what is below it."""
    yield node
    for one in node.below:
        yield from nodes(one)


def time_of(event: StepEvent) -> int:
    """Returns when an event was written, Unix time in milliseconds."""
    return event.time.ToMilliseconds()


def tokens_of(usage: Usage) -> int:
    """Returns the tokens that a budget counts."""
    return usage.input_tokens + usage.output_tokens


def cost_of(event: LlmCall | ToolResult) -> int:
    """Returns what a call has cost, with the embedding that belongs to it."""
    own = event.usage.cost_micros if isinstance(event, LlmCall) else event.cost_micros
    return own + event.embedding.cost_micros
