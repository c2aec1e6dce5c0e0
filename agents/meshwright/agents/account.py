"""A task's account: who spent what, and what is set aside for calls under way; folded from its journal. Pure.

The store keeps the same sums, as counters of the record, and refuses what would exceed a budget. A reservation is
settled by the event that ends its call. One that is open when its task ends is charged in full, there and here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    ContextCompacted,
    LlmCall,
    ModelReservation,
    StepEvent,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    COST_TYPE_EMBEDDING,
    COST_TYPE_LLM,
    COST_TYPE_STORAGE,
    COST_TYPE_TOOL,
    COST_TYPE_UNSPECIFIED,
    CostType,
    TaskResponse,
    Usage,
    UsageShare,
)

MOST_ROWS = 100
NO_USAGE = frozenset({"steps", "reserved_micros"})
"""Counters of a record that are no part of its usage."""
NOTHING: Mapping[str, int] = {}


class Payer(NamedTuple):
    """Whom a row of usage belongs to: an agent, and the model or the tool that it called, and for what."""

    agent: str = ""
    model: str = ""
    tool: str = ""
    kind: CostType.ValueType = COST_TYPE_UNSPECIFIED

    @property
    def type(self) -> CostType.ValueType:
        """What was paid for."""
        if self.kind or not (self.model or self.tool):
            return self.kind
        return COST_TYPE_LLM if self.model else COST_TYPE_TOOL


@dataclass(frozen=True, slots=True)
class Held:
    """Money that is set aside for a call, in millionths of a US dollar."""

    payer: Payer
    micros: int


@dataclass(slots=True)
class Account:
    """What a task with its descendants has spent, and set aside.

    Attributes:
        rows: Usage by payer.
        noticed: By limit, the highest share of it that the task's watchers were told of.
    """

    rows: dict[Payer, Usage] = field(default_factory=dict)
    noticed: dict[str, float] = field(default_factory=dict)
    _agents: dict[str, str] = field(default_factory=dict)
    _tools: dict[tuple[str, str], str] = field(default_factory=dict)
    _held: dict[tuple[str, str], Held] = field(default_factory=dict)

    @property
    def reserved(self) -> int:
        """What is set aside altogether, in millionths of a US dollar."""
        return sum(held.micros for held in self._held.values())

    @property
    def model_call(self) -> Held | None:
        """What is set aside for the task's own model call, while one is under way."""
        return self._held.get(("", ""))

    def held_for(self, call_id: str) -> int:
        """Returns what is set aside for one of the task's own tool calls."""
        held = self._held.get(("", call_id))
        return held.micros if held else 0

    def apply(self, event: StepEvent) -> Mapping[str, int]:
        """Adds one durable event; returns what it adds to the task's usage beside the event's own counters."""
        path, inner = placed(event)
        match inner.WhichOneof("event"):
            case "started":
                self._agents[path] = inner.started.agent_id
            case "reservation":
                self._reserve(path, inner.reservation)
            case "llm_call":
                self._answered(path, inner.llm_call)
            case "context_compacted" if inner.context_compacted.usage.model_calls:
                self._summarised(path, inner.context_compacted)
            case "tool_call":
                call = inner.tool_call
                self._tools[path, call.call_id] = call.tool
                if call.cost_micros:
                    before = self._held.pop((path, call.call_id), Held(Payer(), 0))
                    payer = Payer(self._agents.get(path, ""), tool=call.tool)
                    self._held[path, call.call_id] = Held(payer, before.micros + call.cost_micros)
            case "tool_result":
                self._settled(path, inner.tool_result)
            case "budget" if not path:
                self.noticed[inner.budget.limit] = inner.budget.used_fraction
            case "result":
                return self._ended(path, inner.result)
        return NOTHING

    def _reserve(self, path: str, reservation: ModelReservation) -> None:
        held = self._held.pop((path, ""), None)
        if reservation.state == RESERVATION_STATE_OPEN:
            payer = Payer(self._agents.get(path, ""), reservation.model)
            self._held[path, ""] = Held(payer, reservation.cost_micros)
        elif held and reservation.state == RESERVATION_STATE_CHARGED:
            self._add(held.payer, charged(held.micros))
        self._embedded(path, reservation)

    def _answered(self, path: str, answer: LlmCall) -> None:
        self._held.pop((path, ""), None)
        self._add(Payer(self._agents.get(path, ""), answer.model), answer.usage, model_calls=0 if answer.cached else 1)
        self._embedded(path, answer)

    def _summarised(self, path: str, compacted: ContextCompacted) -> None:
        self._held.pop((path, ""), None)
        self._add(Payer(self._agents.get(path, ""), compacted.model), compacted.usage)

    def _settled(self, path: str, result: ToolResult) -> None:
        self._held.pop((path, result.call_id), None)
        payer = Payer(self._agents.get(path, ""), tool=self._tools.pop((path, result.call_id), ""))
        row = self._row(payer)
        row.tool_calls += 1
        row.cost_micros += result.cost_micros
        self._embedded(path, result)

    def _embedded(self, path: str, event: LlmCall | ToolResult | ModelReservation) -> None:
        if event.HasField("embedding"):
            payer = Payer(self._agents.get(path, ""), event.embedding.model, kind=COST_TYPE_EMBEDDING)
            add(self._row(payer), counters_of_embedding(event))

    def _add(self, payer: Payer, usage: Usage, *, model_calls: int | None = None) -> None:
        """Adds usage to a payer's row; `model_calls` in place of what it says of them."""
        row = self._row(payer)
        calls = row.model_calls + (usage.model_calls if model_calls is None else model_calls)
        total(row, usage)
        row.model_calls = calls

    def _row(self, payer: Payer) -> Usage:
        row = self.rows.get(payer)
        if row is None:
            row = self.rows.setdefault(payer if len(self.rows) < MOST_ROWS else Payer(), Usage())
        return row

    def _ended(self, path: str, result: TaskResponse) -> Mapping[str, int]:
        if result.HasField("storage"):
            payer = Payer(self._agents.get(path, ""), kind=COST_TYPE_STORAGE)
            add(self._row(payer), counters_of_storage(result))
        return self.end(path)

    def end(self, path: str = "") -> Mapping[str, int]:
        """Charges what is set aside for a task that has ended, and for its descendants; returns the sum as counters."""
        inside = f"{path}/" if path else ""
        ended = [place for place in self._held if place[0] == path or place[0].startswith(inside)]
        micros = 0
        for place in ended:
            held = self._held.pop(place)
            micros += held.micros
            self._add(held.payer, charged(held.micros))
        return {"cost_micros": micros, "estimated_cost_micros": micros} if micros else NOTHING

    def shares(self) -> list[UsageShare]:
        """Returns the rows, the dearest first."""
        rows = sorted(self.rows.items(), key=lambda row: (-row[1].cost_micros, -row[1].output_tokens, row[0]))
        return [
            UsageShare(agent_id=who.agent, model=who.model, tool=who.tool, usage=usage, type=who.type)
            for who, usage in rows
        ]


def placed(event: StepEvent) -> tuple[str, StepEvent]:
    """Returns the event inside of all child wrappings, and whose it is: ids from the child down, joined by slashes."""
    path = ""
    while event.HasField("child"):
        path = f"{path}/{event.child.child_task_id}" if path else event.child.child_task_id
        event = event.child.event
    return path, event


def charged(micros: int) -> Usage:
    """The usage of a call that nobody counted."""
    return Usage(cost_micros=micros, estimated_cost_micros=micros)


def counters_of_embedding(event: LlmCall | ToolResult | ModelReservation) -> dict[str, int]:
    """Returns what the embedding of an event adds to a record's counters."""
    spent = event.embedding
    counters = {
        "cost_micros": spent.cost_micros,
        "embedding_tokens": spent.tokens,
        "estimated_cost_micros": spent.cost_micros if spent.estimated else 0,
    }
    return {name: value for name, value in counters.items() if value}


def counters_of_storage(result: TaskResponse) -> Mapping[str, int]:
    """Returns what a task's end adds to a record's counters for what it has written."""
    if not result.HasField("storage"):
        return NOTHING
    return {"stored_bytes": result.storage.bytes, "cost_micros": result.storage.cost_micros}


def counters_of_reservation(reservation: ModelReservation) -> dict[str, int]:
    """Returns what a reservation, opened or closed, adds to a record's counters."""
    micros = reservation.cost_micros
    if reservation.state == RESERVATION_STATE_OPEN:
        return {"reserved_micros": micros}
    if reservation.state == RESERVATION_STATE_CHARGED:
        return {"reserved_micros": -micros, "cost_micros": micros, "estimated_cost_micros": micros}
    return {"reserved_micros": -micros} | (
        counters_of_embedding(reservation) if reservation.HasField("embedding") else {}
    )


def total(usage: Usage, more: Usage) -> None:
    """Adds one usage to another."""
    for name, value in more.ListFields():
        setattr(usage, name.name, getattr(usage, name.name) + value)


def add(usage: Usage, counters: Mapping[str, int]) -> None:
    """Adds counters to a usage."""
    for name, value in counters.items():
        if name not in NO_USAGE:
            setattr(usage, name, getattr(usage, name) + value)
