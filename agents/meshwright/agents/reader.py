"""Reading tasks: records, events, questions, lists; nothing here writes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote

from meshwright.agents.page import Row, page_of
from meshwright.agents.sealing import Sealing
from meshwright.agents.task import Entry, Record, TaskName, parsed
from meshwright.core.errors import ContentKeyMissingError, DataLossError, TaskNotFoundError
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.task_pb2 import PendingInput, TaskRequest, TaskResponse

PAGE = 200
UNREADABLE = {b"request": b"", b"cancel": b""}
"""What stands in a record for content that cannot be read."""
Shelf = Literal["index", "inbox", "dead"]
"""Where a holder's tasks are listed: all of them, those that wait for a person, those that were given up."""


class Reader:
    """Reads tasks from an open store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sealing = Sealing(store)

    def _place(self, name: TaskName) -> tuple[int, str]:
        return name.partition(self.store.partitions), name.ref

    async def record(self, name: TaskName) -> Record:
        """Reads a task's record.

        Raises:
            TaskNotFoundError: This holder has no such task.
            DataLossError: What it was asked cannot be read.
            ContentKeyMissingError: This process does not have the keys.
        """
        partition, ref = self._place(name)
        time, fields = await self.store.run(("TIME",), ("HGETALL", partition_key(partition, "task", ref)))
        if not fields:
            raise not_found(name)
        return Record.parse(name, await self.sealing.opened_fields(name, fields), milliseconds(time))

    async def outline(self, name: TaskName) -> Record:
        """Reads what of a task's record is never encrypted: of what it was asked, its session alone.

        Raises:
            TaskNotFoundError: This holder has no such task.
        """
        partition, ref = self._place(name)
        time, fields = await self.store.run(("TIME",), ("HGETALL", partition_key(partition, "task", ref)))
        if not fields:
            raise not_found(name)
        request = TaskRequest(session_id=fields.get(b"session", b"").decode())
        return Record.parse(name, fields | UNREADABLE | {b"request": request.SerializeToString()}, milliseconds(time))

    async def responses(self, names: Sequence[TaskName]) -> list[TaskResponse]:
        """Reads tasks as they stand; those that are gone are left out."""
        keys = [self._place(name) for name in names]
        replies = await self.store.run(
            ("TIME",),
            *(("HGETALL", partition_key(partition, "task", ref)) for partition, ref in keys),
            *(("XREVRANGE", partition_key(partition, "log", ref), "+", "-", "COUNT", 1) for partition, ref in keys),
            *(("HGETALL", partition_key(partition, "inputs", ref)) for partition, ref in keys),
        )
        now, many = milliseconds(replies[0]), len(keys)
        parts = (replies[1 : many + 1], replies[many + 1 : 2 * many + 1], replies[2 * many + 1 :])
        found = []
        for name, fields, last, inputs in zip(names, *parts, strict=True):
            if not fields:
                continue
            try:
                record = Record.parse(name, await self.sealing.opened_fields(name, fields), now)
                response = record.response()
                response.pending_inputs.extend(await self._shown(name, inputs))
                if record.is_terminal and last:
                    (entry,) = await self._entries(name, last)
                    result = entry.event(name.task_id).result
                    response.MergeFrom(only_of_result(result))
            except (DataLossError, ContentKeyMissingError) as error:
                response = Record.parse(name, fields | UNREADABLE, now).response()
                response.error.CopyFrom(error.with_metadata(task_id=name.task_id).to_status())
            found.append(response)
        return found

    async def _shown(self, name: TaskName, entries: Mapping[bytes, bytes]) -> list[PendingInput]:
        """Reads the questions that a task shows; those of descendants name who asks."""
        found = []
        for input_id, entry in entries.items():
            origin, _, question = entry.split(b" ", 2)
            payload = await self.sealing.opened_input(name, input_id.decode(), origin.decode(), question)
            pending = parsed(PendingInput, payload, f"question {input_id.decode()} of task {name.task_id}")
            if origin.decode() != name.task_id:
                pending.origin_task_id = origin.decode()
            found.append(pending)
        return sorted(found, key=lambda pending: (pending.expire_time.ToNanoseconds(), pending.input_id))

    async def response(self, name: TaskName) -> TaskResponse:
        """Reads one task as it stands.

        Raises:
            TaskNotFoundError: This holder has no such task.
        """
        found = await self.responses([name])
        if not found:
            raise not_found(name)
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
            entry = Entry(sequence, int(fields[b"t"]), fields.get(b"p", b"").decode(), payload)
            entries.append(await self.sealing.opened(name, entry))
        return entries

    async def page(self, holder: TaskName, before: Row | None, limit: int, *, shelf: Shelf = "index") -> list[Row]:
        """Lists (created ms, task id) of a holder's tasks, newest first, after a cursor of the same form."""
        name = holder.ref.rpartition("/")[0]
        found: list[Row] = []
        for partition in range(self.store.partitions):
            found += await page_of(self.store, shelf_key(partition, shelf, name), before, limit)
        return sorted(found, reverse=True)[:limit]

    async def inputs(self, name: TaskName) -> list[PendingInput]:
        """Reads the questions that a task shows, its descendants' included, in the order in which they lapse."""
        partition, ref = self._place(name)
        (entries,) = await self.store.run(("HGETALL", partition_key(partition, "inputs", ref)))
        return await self._shown(name, entries)


def only_of_result(result: TaskResponse) -> TaskResponse:
    """Keeps of a journaled result what the record does not hold."""
    kept = TaskResponse(
        output=result.output,
        finish_reason=result.finish_reason,
        unanswered=result.unanswered,
        degraded=result.degraded,
        agent_version=result.agent_version,
        usage_shares=result.usage_shares,
    )
    if result.HasField("error"):
        kept.error.CopyFrom(result.error)
    if result.HasField("storage"):
        kept.storage.CopyFrom(result.storage)
    if result.HasField("output_data"):
        kept.output_data.CopyFrom(result.output_data)
    return kept


def shelf_key(partition: int, shelf: Shelf, holder: str) -> str:
    """Spells where a holder's tasks are listed."""
    match shelf:
        case "inbox":
            return partition_key(partition, "inbox", holder)
        case "dead":
            return partition_key(partition, "dead", holder)
    return partition_key(partition, "index", holder)


def milliseconds(time: Sequence[bytes]) -> int:
    """Reads the store's TIME."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


def parse_ref(ref: str) -> TaskName:
    """Reads a task's name from a key."""
    return TaskName(*map(unquote, ref.split("/")))


def not_found(name: TaskName) -> TaskNotFoundError:
    """Says that a holder has no such task, in words that tell nothing of other holders."""
    return TaskNotFoundError(
        f"no task {name.task_id}: it was never accepted, it has expired, or is another principal's"
    )
