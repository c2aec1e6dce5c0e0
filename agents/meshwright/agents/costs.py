"""Costs: what ended trees of tasks have cost, summed by day; the outbox adds each tree once."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from meshwright.agents.escrow import KEPT_MS, day_of, trace_of
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.task import Record, TaskName
from meshwright.core.errors import InvalidRequestError
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.task_pb2 import CostType, TaskResponse, Usage
from meshwright.gen.agents.v1.task_service_pb2 import (
    COST_GROUPING_UNSPECIFIED,
    CostGrouping,
    CostRow,
    GetCostsRequest,
    GetCostsResponse,
)

MOST_DAYS = 40
MOST_CHARACTERS = 200
DAYS_OF_A_SESSION = 2 * MOST_DAYS
"""A day's sums are kept for forty days after a task was last added to them, and it may run on long after its day."""


class Costs:
    """The sums of a mesh, by tenant and day."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def count(self, root: Record, response: TaskResponse) -> None:
        """Adds what a tree has cost to the day on which it was accepted, once."""
        arguments: list[str | int] = []
        for row, usage in rows_of(root, response):
            arguments += [row[:MOST_CHARACTERS], usage.cost_micros, usage.estimated_cost_micros, tokens_of(usage)]
        slot = slot_of(root.name.tenant, day_of(root.created))
        function, key = LIBRARY.function("count"), partition_key(slot, "costs")
        await self._journal.store.call(function, key, slot, trace_of(root.name), KEPT_MS, *arguments)

    async def forget(self, name: TaskName, session_id: str) -> None:
        """Takes a session's name out of the sums; what it has cost stays in them.

        Args:
            name: Any task of the holder.
            session_id: The session.
        """
        row = session_row(name, session_id)[:MOST_CHARACTERS]
        today = datetime.now(UTC).date()
        slots = [slot_of(name.tenant, (today - timedelta(days=ago)).isoformat()) for ago in range(DAYS_OF_A_SESSION)]
        keys = [partition_key(slot, "costs") for slot in slots]
        found = await self._journal.store.run(*(("HEXISTS", key, f"{row} c") for key in keys))
        for slot, key, is_there in zip(slots, keys, found, strict=True):
            if is_there:
                await self._journal.store.call(LIBRARY.function("unname"), key, slot, row)

    async def table(self, tenant: str, request: GetCostsRequest) -> GetCostsResponse:
        """Sums a tenant's costs over days, the dearest row first.

        Raises:
            InvalidRequestError: A day is none, or there are too many.
        """
        if request.by not in CostGrouping.values():
            raise InvalidRequestError("by is no CostGrouping", fields={"by": "is no CostGrouping"})
        prefix = grouping(request.by) + " "
        keys = (partition_key(slot_of(tenant, day), "costs") for day in days_of(request))
        sums: dict[str, CostRow] = {}
        for fields in await self._journal.store.run(*(("HGETALL", key) for key in keys)):
            for field, value in fields.items():
                row, _, what = field.decode().rpartition(" ")
                if row.startswith(prefix):
                    name = row.removeprefix(prefix)
                    add(sums.setdefault(name, CostRow(name=name)), what, int(value))
        rows = sorted(sums.values(), key=lambda row: (-row.cost_micros, row.name))
        return GetCostsResponse(rows=rows)


def is_counted(usage: Usage) -> bool:
    """Whether a tree's usage is summed: it has cost something, or used tokens of a model that is free."""
    return bool(usage.cost_micros or tokens_of(usage))


def tokens_of(usage: Usage) -> int:
    """Returns the tokens of usage: input, output and embedded ones."""
    return usage.input_tokens + usage.output_tokens + usage.embedding_tokens


def rows_of(root: Record, response: TaskResponse) -> Iterator[tuple[str, Usage]]:
    """Names the rows that a tree's usage is added to: a grouping, and a name in it."""
    name = root.name
    yield f"tenant {name.tenant}", response.usage
    yield f"user {name.principal}", response.usage
    if root.session_id:
        yield session_row(name, root.session_id), response.usage
    for share in response.usage_shares:
        yield f"agent {share.agent_id or '*'}", share.usage
        if share.model:
            yield f"model {share.model}", share.usage
        if share.tool:
            yield f"tool {share.tool}", share.usage
        if share.type:
            yield f"type {CostType.Name(share.type).removeprefix('COST_TYPE_').lower()}", share.usage


def session_row(name: TaskName, session_id: str) -> str:
    """Names a session's row."""
    return f"session {name.principal}/{session_id}"


def add(row: CostRow, what: str, value: int) -> None:
    """Adds one counter: `c` cost, `e` its estimated part, `t` tokens."""
    if what == "c":
        row.cost_micros += value
    elif what == "e":
        row.estimated_cost_micros += value
    else:
        row.tokens += value


def grouping(by: CostGrouping.ValueType) -> str:
    """Spells a grouping as rows do."""
    name = CostGrouping.Name(by).removeprefix("COST_GROUPING_").lower()
    return "agent" if by == COST_GROUPING_UNSPECIFIED else name


def slot_of(tenant: str, day: str) -> str:
    """Names the slot of a tenant's day."""
    return segment(f"costs/{segment(tenant)}/{day}")


def days_of(request: GetCostsRequest) -> list[str]:
    """Lists the days that are asked for.

    Raises:
        InvalidRequestError: A day is none, they are in the wrong order, or there are too many.
    """
    first = parsed_day("from_day", request.from_day) if request.from_day else datetime.now(UTC).date()
    last = parsed_day("to_day", request.to_day) if request.to_day else first
    many = (last - first).days + 1
    if not 1 <= many <= MOST_DAYS:
        problem = f"must be 0 to {MOST_DAYS - 1} days after from_day"
        raise InvalidRequestError(f"to_day {problem}", fields={"to_day": problem})
    return [(first + timedelta(days=number)).isoformat() for number in range(many)]


def parsed_day(field: str, text: str) -> date:
    """Reads a day.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{field} is no day", fields={field: "must be YYYY-MM-DD"}) from None
