"""Session memory: earlier turns of a conversation, written once a task by way of the outbox."""

import contextlib
from dataclasses import dataclass

from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.models.model import Message, estimated_tokens
from meshwright.agents.task import TaskName
from meshwright.core.errors import TaskNotFoundError
from meshwright.core.store import Store, partition_key, segment
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

KEPT_TURNS = 100
KEPT_MS = 30 * 86_400_000
LOADED_TURNS = 10
LOADED_TOKENS = 2_048
RELAYED = 100


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
        key = partition_key(session_of(name, session_id), "session")
        (items,) = await self._store.run(("XREVRANGE", key, "+", "-", "COUNT", LOADED_TURNS))
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
        """Adds a finished task to its session, once."""
        if not request.session_id or response.status != TASK_STATUS_COMPLETED or not response.output:
            return
        session = session_of(name, request.session_id)
        turn = (name.task_id, request.prompt, response.output)
        slot = partition_key(session, "session")
        await self._store.call(LIBRARY.function("remember"), slot, session, *turn, KEPT_TURNS, KEPT_MS)


def session_of(name: TaskName, session_id: str) -> str:
    """Names the slot of a session: its holder is part of it."""
    return segment(name.sibling(session_id).ref)


class Outbox:
    """Applies what finished tasks leave behind outside of their partition; every entry may be applied again."""

    def __init__(self, journal: Journal, memory: Memory) -> None:
        self._journal = journal
        self._memory = memory

    async def relay(self, partition: int) -> int:
        """Applies and removes waiting entries, the oldest first; returns how many."""
        entries = await self._journal.outbox(partition, RELAYED)
        for entry_id, name in entries:
            with contextlib.suppress(TaskNotFoundError):  # expired before anybody was here to relay it
                record = await self._journal.record(name)
                if record.request.session_id and not record.parent_id:
                    await self._memory.remember(name, record.request, await self._journal.response(name))
            await self._journal.outbox_done(partition, entry_id)
        return len(entries)

    async def history(self, name: TaskName, session_id: str) -> list[Message]:
        """Returns a session's latest turns, those of tasks that have just ended included."""
        if not session_id:
            return []
        for partition in range(self._journal.store.partitions):
            while await self.relay(partition) == RELAYED:
                pass
        return await self._memory.load(name, session_id)
