"""The journal: every write of a task is one function of `journal.lua`, every read comes from here."""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from meshwright.agents.task import Entry, NewTask, Record, TaskName, counted
from meshwright.core.errors import (
    FencedError,
    QueueFullError,
    ResultTooLargeError,
    TaskCancelledError,
    TaskConflictError,
    TaskExpiredError,
    TaskNotFoundError,
)
from meshwright.core.store import Library, Store, partition_key
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskResponse

LIBRARY = Library("journal", Path(__file__).with_suffix(".lua").read_text())
PAGE = 200
RETENTION_MS = 7 * 86_400_000
TOMBSTONE_MS = 86_400_000


@dataclass(slots=True)
class Claim:
    """A task that this process owns until it is fenced."""

    name: TaskName
    fence: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: `claim` where this process is to work on it, `time_ms` of a task that is new."""

    is_new: bool
    claim: Claim | None = None
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Appended:
    """Where events were written, when (store ms), and whether somebody wants the task to stop."""

    first: int
    time_ms: int
    cancel: str


@dataclass(frozen=True, slots=True)
class Beaten:
    """Refs of tasks that a beat found lost, and of those that somebody wants to stop."""

    lost: frozenset[str]
    cancelled: frozenset[str]


class Journal:
    """Writes and reads tasks.

    Args:
        store: An open store that holds `LIBRARY`.
        owner: Name of this process in ownership records.
        lease_s: How long a claim lives without a beat.
        max_ready: Tasks that may wait for one agent in one partition before new roots are refused.
    """

    def __init__(self, store: Store, owner: str, *, lease_s: float = 15.0, max_ready: int = 10_000) -> None:
        self.store = store
        self.owner = owner
        self.lease_ms = int(lease_s * 1000)
        self._max_ready = max_ready

    async def _call(self, function: str, partition: int, *arguments: str | int | bytes) -> Any:
        slot = partition_key(partition, "task", "-")
        return await self.store.call(LIBRARY.function(function), slot, partition, *arguments)

    def _place(self, name: TaskName) -> tuple[int, str]:
        return name.partition(self.store.partitions), name.ref

    async def accept(self, task: NewTask, *, claim: bool, events: Sequence[StepEvent] = ()) -> Accepted:
        """Accepts a task, once.

        Args:
            task: What is asked.
            claim: Own it at once instead of queueing it.
            events: First entries of a journal that is claimed.

        Returns:
            Whether the task is new, and the claim, if it was to be claimed; a known task with the same request is
            attached to.

        Raises:
            TaskConflictError: The id is taken by another request.
            TaskExpiredError: The id was used and deleted not long ago.
            QueueFullError: Too many tasks wait.
            TaskCancelledError: The parent has ended or is being cancelled.
        """
        partition, ref = self._place(task.name)
        payloads = [event.SerializeToString() for event in events]
        owner, nonce = (self.owner, secrets.token_hex(8)) if claim else ("", "")
        # fmt: off
        reply = await self._call(
            "accept", partition, ref, task.name.task_id, task.agent_id, task.hash, task.request.SerializeToString(),
            task.timeout_ms, RETENTION_MS, task.parent_id, task.root_id, task.depth, task.call_id, task.trace,
            self._max_ready, owner, nonce, self.lease_ms, len(payloads), *payloads,
        )
        # fmt: on
        match reply[0]:
            case b"new":
                return Accepted(True, Claim(task.name, reply[1].decode()) if claim else None, reply[2])
            case b"known" if reply[1]:
                return Accepted(False)
            case b"known":
                raise TaskConflictError(f"task {task.name.task_id} exists with another request: choose another task_id")
            case b"expired":
                raise TaskExpiredError(f"task {task.name.task_id} has been deleted: choose another task_id")
            case b"full":
                raise QueueFullError(f"too many tasks wait for {task.agent_id}: try again later", retry_after_s=5)
        raise TaskCancelledError("the parent task has ended: nothing is started for it any more")

    async def claim(self, partition: int, agent_id: str) -> Claim | None:
        """Takes the next ready task of an agent, if there is one."""
        reply = await self._call("claim", partition, agent_id, self.owner, secrets.token_hex(8), self.lease_ms)
        return Claim(parse_ref(reply[0].decode()), reply[1].decode()) if reply else None

    async def append(
        self,
        claim: Claim,
        key: str,
        events: Sequence[StepEvent],
        *,
        is_progress: bool = True,
    ) -> Appended:
        """Writes events under the claim's fence; the same key again writes nothing and answers the same.

        Raises:
            FencedError: Somebody else owns the task, or it has ended.
            ResultTooLargeError: The journal is full.
        """
        partition, ref = self._place(claim.name)
        payloads = [event.SerializeToString() for event in events]
        reply = await self._call(
            "append", partition, ref, claim.fence, key, int(is_progress), spelled(events), len(payloads), *payloads
        )
        if reply[0] == b"fenced":
            raise FencedError(f"task {claim.name.task_id} is owned by another process now")
        if reply[0] == b"full":
            message = "a journal holds 10,000 events, each of 4 MiB, large ones of 32 MiB together: narrow the task"
            raise ResultTooLargeError(message)
        return Appended(reply[0], reply[1], reply[2].decode())

    async def park(self, claim: Claim, last_sequence: int, waiting: int, event: StepEvent) -> bool:
        """Gives the task up until `waiting` children have ended; False: something has happened since `last_sequence`.

        Raises:
            FencedError: Somebody else owns the task.
        """
        partition, ref = self._place(claim.name)
        payload = event.SerializeToString()
        reply = await self._call("park", partition, ref, claim.fence, last_sequence, waiting, payload)
        if reply == b"fenced":
            raise FencedError(f"task {claim.name.task_id} is owned by another process now")
        return bool(reply == b"parked")

    async def finish(self, claim: Claim, state: str, events: Sequence[StepEvent]) -> Appended:
        """Ends a task; the last event is its result.

        Raises:
            FencedError: Somebody else owns the task, or it has ended: the first end wins.
        """
        partition, ref = self._place(claim.name)
        payloads = [event.SerializeToString() for event in events]
        counters = spelled(events)
        reply = await self._call("finish", partition, ref, claim.fence, state, counters, len(payloads), *payloads)
        if reply[0] in (b"fenced", b"ended"):
            raise FencedError(f"task {claim.name.task_id} has ended or is owned by another process now")
        return Appended(reply[0], reply[1], "")

    async def finish_idle(self, name: TaskName, state: str, result: StepEvent) -> bool:
        """Ends a task that nobody runs; False: somebody does, or it has ended."""
        partition, ref = self._place(name)
        return bool(await self._call("finish_idle", partition, ref, state, result.SerializeToString()))

    async def cancel(self, name: TaskName, reason: str) -> list[TaskName]:
        """Asks a task and its descendants to stop; returns those that nobody runs, which the caller must end."""
        partition, ref = self._place(name)
        reply = await self._call("cancel", partition, ref, reason)
        return [parse_ref(idle.decode()) for idle in reply[1:]]

    async def pass_on(self, name: TaskName, frame: StepEvent) -> None:
        """Shows a frame that is not kept, such as a text delta, to the watchers of a task and of its ancestors."""
        partition, ref = self._place(name)
        await self._call("pass_on", partition, ref, frame.SerializeToString())

    async def release(self, claim: Claim) -> None:
        """Hands a task back to the queue."""
        partition, ref = self._place(claim.name)
        await self._call("release", partition, ref, claim.fence)

    async def beat(self, claims: Sequence[Claim]) -> Beaten:
        """Renews leases."""
        lost: set[str] = set()
        cancelled: set[str] = set()
        placed: dict[int, list[str]] = {}
        for claim in claims:
            partition, ref = self._place(claim.name)
            placed.setdefault(partition, []).extend((ref, claim.fence))
        for partition, pairs in placed.items():
            reply = await self._call("beat", partition, self.lease_ms, *pairs)
            lost.update(ref.decode() for ref in reply[0])
            cancelled.update(ref.decode() for ref in reply[1])
        return Beaten(frozenset(lost), frozenset(cancelled))

    async def sweep(self, partition: int) -> tuple[int, list[TaskName]]:
        """Re-queues tasks of lost workers; returns how many, and the idle tasks that must be ended."""
        reply = await self._call("sweep", partition, self.lease_ms)
        return reply[0], [parse_ref(ref.decode()) for ref in reply[1:]]

    async def purge(self, partition: int) -> int:
        """Deletes tasks whose retention is over; returns how many."""
        return int(await self._call("purge", partition, TOMBSTONE_MS))

    async def record(self, name: TaskName) -> Record:
        """Reads a task's record.

        Raises:
            TaskNotFoundError: This holder has no such task.
        """
        partition, ref = self._place(name)
        time, fields = await self.store.run(("TIME",), ("HGETALL", partition_key(partition, "task", ref)))
        if not fields:
            raise TaskNotFoundError(f"no task {name.task_id}: it was never accepted, or it has expired")
        return Record.parse(name, fields, milliseconds(time))

    async def responses(self, names: Sequence[TaskName]) -> list[TaskResponse]:
        """Reads tasks as they stand; those that are gone are left out."""
        keys = [self._place(name) for name in names]
        replies = await self.store.run(
            ("TIME",),
            *(("HGETALL", partition_key(partition, "task", ref)) for partition, ref in keys),
            *(("XREVRANGE", partition_key(partition, "log", ref), "+", "-", "COUNT", 1) for partition, ref in keys),
        )
        now = milliseconds(replies[0])
        records, lasts = replies[1 : len(keys) + 1], replies[len(keys) + 1 :]
        found = []
        for name, fields, last in zip(names, records, lasts, strict=True):
            if not fields:
                continue
            record = Record.parse(name, fields, now)
            response = record.response()
            if record.is_terminal and last:
                (entry,) = await self._entries(name, last)
                result = entry.event(name.task_id).result
                response.MergeFrom(only_of_result(result))
            found.append(response)
        return found

    async def response(self, name: TaskName) -> TaskResponse:
        """Reads one task as it stands.

        Raises:
            TaskNotFoundError: This holder has no such task.
        """
        found = await self.responses([name])
        if not found:
            raise TaskNotFoundError(f"no task {name.task_id}: it was never accepted, or it has expired")
        return found[0]

    async def read(self, name: TaskName, after: int, limit: int = PAGE) -> list[Entry]:
        """Reads entries after a sequence, oldest first."""
        partition, ref = self._place(name)
        key = partition_key(partition, "log", ref)
        (items,) = await self.store.run(("XRANGE", key, f"0-{after + 1}", "+", "COUNT", limit))
        return await self._entries(name, items)

    async def replay(self, name: TaskName, after: int = 0) -> AsyncIterator[Entry]:
        """Reads all entries after a sequence, page by page."""
        page = await self.read(name, after)
        while page:
            for entry in page:
                yield entry
            page = await self.read(name, page[-1].sequence) if len(page) == PAGE else []

    async def ready(self, agent_id: str) -> int:
        """Counts the tasks that wait for an agent."""
        keys = [partition_key(partition, "ready", agent_id) for partition in range(self.store.partitions)]
        return sum(await self.store.run(*(("ZCARD", key) for key in keys)))

    async def outbox(self, partition: int, limit: int = 100) -> list[tuple[bytes, TaskName]]:
        """Returns ended tasks whose traces outside of the partition are still to be written, oldest first."""
        (items,) = await self.store.run(("XRANGE", partition_key(partition, "outbox"), "-", "+", "COUNT", limit))
        return [(item_id, parse_ref(fields[b"ref"].decode())) for item_id, fields in items]

    async def outbox_done(self, partition: int, entry_id: bytes) -> None:
        """Removes an entry whose traces are written."""
        await self.store.run(("XDEL", partition_key(partition, "outbox"), entry_id))

    async def _entries(self, name: TaskName, items: Sequence[Any]) -> list[Entry]:
        partition, ref = self._place(name)
        entries = []
        for item_id, fields in items:
            sequence = int(item_id.partition(b"-")[2])
            payload = fields.get(b"e")
            if payload is None:
                (payload,) = await self.store.run(("HGET", partition_key(partition, "blob", ref), sequence))
            if payload is None:
                raise TaskNotFoundError(f"task {name.task_id} has expired while it was read")
            entries.append(Entry(sequence, int(fields[b"t"]), fields.get(b"p", b"").decode(), payload))
        return entries

    async def page(
        self, tenant: str, principal: str, before: tuple[int, str] | None, limit: int
    ) -> list[tuple[int, str]]:
        """Lists (created ms, task id) of a holder's tasks, newest first, after a cursor of the same form."""
        holder = TaskName(tenant, principal, "").ref.rstrip("/")
        top = str(before[0]) if before else "+inf"
        found: list[tuple[int, str]] = []
        for partition in range(self.store.partitions):
            key = partition_key(partition, "index", holder)
            fresh: list[tuple[int, str]] = []
            offset = 0
            while len(fresh) < limit:
                scope = (top, "-inf", "BYSCORE", "REV", "LIMIT", offset, limit, "WITHSCORES")
                (reply,) = await self.store.run(("ZRANGE", key, *scope))
                rows = [(int(score), member.decode()) for member, score in reply]
                if not rows:
                    break
                fresh.extend(row for row in rows if before is None or row < before)
                offset += len(rows)
            found.extend(fresh)
        return sorted(found, reverse=True)[:limit]


def only_of_result(result: TaskResponse) -> TaskResponse:
    """Keeps of a journaled result what the record does not hold."""
    kept = TaskResponse(
        output=result.output,
        finish_reason=result.finish_reason,
        degraded=result.degraded,
        agent_version=result.agent_version,
        usage_shares=result.usage_shares,
    )
    if result.HasField("error"):
        kept.error.CopyFrom(result.error)
    if result.HasField("output_data"):
        kept.output_data.CopyFrom(result.output_data)
    return kept


def milliseconds(time: Sequence[bytes]) -> int:
    """Reads the store's TIME."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


def spelled(events: Sequence[StepEvent]) -> str:
    """Spells what events add to the counters as one argument."""
    return " ".join(f"{name} {value}" for name, value in counted(events).items())


def parse_ref(ref: str) -> TaskName:
    """Reads a task's name from a key."""
    return TaskName(*map(unquote, ref.split("/")))
