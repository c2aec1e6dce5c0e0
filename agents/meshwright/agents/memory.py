"""Session memory: earlier turns of a conversation, written once a task by way of the outbox."""

from dataclasses import dataclass

from meshwright.agents.journal import Journal
from meshwright.agents.models.model import Message, estimated_tokens
from meshwright.agents.task import TaskName
from meshwright.core.store import Store, partition_key, segment
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

KEPT_TURNS = 100
KEPT_MS = 30 * 86_400_000
LOADED_TURNS = 10
LOADED_TOKENS = 2_048


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished task of a session."""

    prompt: str
    output: str


class Memory:
    """Reads and writes sessions; a session is a stream of (task id, prompt, output) in a slot of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self, name: TaskName, session_id: str) -> list[Message]:
        """Returns the latest turns as messages, oldest first; at most `LOADED_TURNS`, about `LOADED_TOKENS`."""
        if not session_id:
            return []
        (items,) = await self._store.run(("XREVRANGE", session_key(name, session_id), "+", "-", "COUNT", LOADED_TURNS))
        room = LOADED_TOKENS
        turns: list[Turn] = []
        for _, fields in items:
            turn = Turn(fields[b"prompt"].decode(), fields[b"output"].decode())
            room -= estimated_tokens(turn.prompt) + estimated_tokens(turn.output)
            if room < 0:
                break
            turns.append(turn)
        return [
            message
            for turn in reversed(turns)
            for message in (Message("user", turn.prompt), Message("assistant", turn.output))
        ]

    async def remember(self, name: TaskName, request: TaskRequest, response: TaskResponse) -> None:
        """Adds a finished task to its session; again: harmless, as its place is the task's creation time and id."""
        if not request.session_id or response.status != TASK_STATUS_COMPLETED or not response.output:
            return
        key = session_key(name, request.session_id)
        (known,) = await self._store.run(("XREVRANGE", key, "+", "-", "COUNT", KEPT_TURNS))
        for _, fields in known:
            if fields[b"task"].decode() == name.task_id:
                return
        await self._store.run(
            ("XADD", key, "MAXLEN", KEPT_TURNS, "*", "task", name.task_id, "prompt", request.prompt, "output", response.output),
            ("PEXPIRE", key, KEPT_MS),
        )


def session_key(name: TaskName, session_id: str) -> str:
    """Spells the key of a session: its holder is part of it."""
    holder = TaskName(name.tenant, name.principal, session_id).ref
    return partition_key(segment(holder), "session")


class Outbox:
    """Applies what finished tasks leave behind outside of their partition; every entry may be applied again."""

    def __init__(self, journal: Journal, memory: Memory) -> None:
        self._journal = journal
        self._memory = memory

    async def relay(self, partition: int) -> int:
        """Applies and removes waiting entries; returns how many."""
        entries = await self._journal.outbox(partition)
        for entry_id, name in entries:
            record = await self._journal.record(name)
            if record.request.session_id and not record.parent_id:
                await self._memory.remember(name, record.request, await self._journal.response(name))
            await self._journal.outbox_done(partition, entry_id)
        return len(entries)
