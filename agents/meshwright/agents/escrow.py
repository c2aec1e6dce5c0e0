"""Escrow: budgets that trees of tasks share, of a session and of a day; a tree takes chunks and returns the rest.

Each shared budget is a counter in a slot of its own, which no script of a task can reach. So a tree takes a chunk from
each before it spends, once by number, and keeps it in its root's record; the outbox returns what is left when the root
ends. What trees have taken is never more than the budget.

Which budgets a tree shares is written into its record when it is accepted, so processes that are told different ones
take from the same counters, and return to them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.run import persistently
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import NewTask, Record, TaskName
from meshwright.core.canonical import digest
from meshwright.core.errors import BudgetExceededError
from meshwright.core.store import partition_key, segment

CHUNK_MICROS = 50_000
"""Five cents: few trips, and little that lies idle."""
PARTS = 20
"""A chunk is at most this part of the smallest budget, so that one tree does not hold it all."""
KEPT_MS = 40 * 86_400_000


@dataclass(frozen=True, slots=True)
class Counter:
    """One shared budget: where its counter is, how much it allows, how people call it."""

    slot: str
    limit: int
    title: str
    is_daily: bool = True


class Escrow:
    """Takes from shared budgets, and returns.

    Args:
        journal: Knows the store, and the roots of trees.
        limits: What this process is told.
    """

    def __init__(self, journal: Journal, limits: SharedLimits) -> None:
        self._journal = journal
        self._limits = limits

    def sharing(self, task: NewTask) -> NewTask:
        """Writes into a new tree's root which budgets it shares; children share those of their root."""
        if not self._limits or task.parent_id:
            return task
        return replace(task, shared=self._limits if task.session_id else replace(self._limits, session=0))

    async def check(self, task: NewTask) -> None:
        """Lets a new tree pass where every budget that it would share has something left.

        Raises:
            BudgetExceededError: One is used up; says when the next one opens, where that is known.
        """
        now = time.time()
        counters = list(counters_of(task.shared, task.name, task.session_id, int(now * 1000)))
        if not counters:
            return
        taken = await self._journal.store.run(*(("GET", partition_key(one.slot, "escrow")) for one in counters))
        for counter, micros in zip(counters, taken, strict=True):
            if int(micros or 0) >= counter.limit:
                raise exceeded(counter, now)

    async def take(self, record: Record, chunk: int, need: int) -> int:
        """Takes a chunk for a task's tree from every budget that it shares; the same number again brings the same.

        A budget of which this process is told more than the one that accepted the tree counts as that much.

        Returns:
            Its size; 0: one of the budgets has too little left.
        """
        root = await persistently(self._root, record)
        counters = self._counters(root)
        most = max(need, min(CHUNK_MICROS, *(counter.limit // PARTS for counter in counters))) if counters else need
        granted = most
        for counter in counters:
            arguments = (trace_of(root.name), chunk, need, most, counter.limit, KEPT_MS)
            reply = await persistently(self._call, "take", counter.slot, *arguments)
            granted = min(granted, reply[0])
            if not granted:
                break
        return granted

    async def scarcest(self, record: Record) -> tuple[int, str]:
        """Returns what is left of that budget which has the least left for a task's tree, and how people call it."""
        counters = self._counters(await persistently(self._root, record))
        keys = [partition_key(one.slot, "escrow") for one in counters]
        taken = await persistently(self._journal.store.run, *(("GET", key) for key in keys))
        pairs = zip(counters, taken, strict=True)
        return min((max(0, counter.limit - int(micros or 0)), counter.title) for counter, micros in pairs)

    def _counters(self, root: Record) -> list[Counter]:
        limits = root.shared.raised(self._limits)
        return list(counters_of(limits, root.name, root.session_id, root.created))

    async def _root(self, record: Record) -> Record:
        root_id = record.root_id or record.name.task_id
        return record if root_id == record.name.task_id else await self._journal.record(record.name.sibling(root_id))

    async def give_back(self, root: Record) -> None:
        """Returns what an ended tree has taken and not spent; may be repeated."""
        for counter in counters_of(root.shared, root.name, root.session_id, root.created):
            await self._call("give_back", counter.slot, trace_of(root.name), root.usage.cost_micros)

    async def _call(self, function: str, slot: str, *arguments: str | int) -> list[int]:
        key = partition_key(slot, "escrow")
        reply: list[int] = await self._journal.store.call(LIBRARY.function(function), key, slot, *arguments)
        return reply


def counters_of(limits: SharedLimits, name: TaskName, session_id: str, created_ms: int) -> Iterator[Counter]:
    """Names the budgets that a tree shares, by its root's name, session and time of acceptance."""
    if not limits:
        return
    day = day_of(created_ms)
    if limits.session and session_id:
        slot = segment(f"session/{trace_of(name.sibling(session_id))}")
        yield Counter(slot, limits.session, f"the budget of session {session_id}", is_daily=False)
    if limits.user_day:
        user = name.sibling(day).ref
        yield Counter(segment(f"user/{user}"), limits.user_day, f"the budget of {name.principal} on {day}")
    if limits.tenant_day:
        tenant = "/".join(map(segment, (name.tenant, day)))
        yield Counter(segment(f"tenant/{tenant}"), limits.tenant_day, f"the budget of {name.tenant} on {day}")
    if limits.global_day:
        yield Counter(segment(f"mesh/{day}"), limits.global_day, f"the budget of the mesh on {day}")


def trace_of(name: TaskName) -> str:
    """Names a task, or a session, in counters that outlive it: they still tell it from others when it is forgotten."""
    return digest(name.ref)


def day_of(created_ms: int) -> str:
    """Returns the day (UTC) of a time in milliseconds."""
    return datetime.fromtimestamp(created_ms / 1000, UTC).date().isoformat()


def exceeded(counter: Counter, now: float) -> BudgetExceededError:
    """The refusal of a task whose shared budget is used up."""
    if not counter.is_daily:
        return BudgetExceededError(f"{counter.title} is used up: begin another session")
    opens = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    message = f"{counter.title} is used up: the next one opens at {opens:%Y-%m-%dT%H:%MZ}"
    return BudgetExceededError(message, retry_after_s=max(1.0, opens.timestamp() - now))
