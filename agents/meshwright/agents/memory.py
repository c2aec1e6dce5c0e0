"""Session memory: earlier turns of a conversation; each task leaves its own by way of the outbox."""

import contextlib
from dataclasses import dataclass

from meshwright.agents.costs import Costs
from meshwright.agents.escrow import Escrow
from meshwright.agents.journal import Journal
from meshwright.agents.models.model import Message, estimated_tokens
from meshwright.agents.session import Sessions, session_of
from meshwright.agents.task import TaskName
from meshwright.core.errors import TaskNotFoundError
from meshwright.core.store import Store, partition_key

LOADED_TURNS = 10
LOADED_TOKENS = 2_048
RELAYED = 100


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished task of a session."""

    prompt: str
    output: str


class Memory:
    """Reads sessions; a session is a stream of (task id, prompt, output) in a slot of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load(self, name: TaskName, session_id: str) -> list[Message]:
        """Returns the latest turns as messages, oldest first; at most `LOADED_TURNS`, about `LOADED_TOKENS`."""
        if not session_id:
            return []
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


class Outbox:
    """Applies what finished tasks leave behind outside of their partition; every entry may be applied again."""

    def __init__(self, journal: Journal, sessions: Sessions, escrow: Escrow, costs: Costs) -> None:
        self._journal = journal
        self._sessions = sessions
        self._escrow = escrow
        self._costs = costs

    async def relay(self, partition: int) -> int:
        """Applies and removes waiting entries, the oldest first; returns how many."""
        entries = await self._journal.outbox(partition, RELAYED)
        for entry_id, name in entries:
            with contextlib.suppress(TaskNotFoundError):  # expired before anybody was here to relay it
                record = await self._journal.record(name)
                response = await self._journal.response(name)
                if record.session_id:
                    await self._sessions.leave(name, record.request, response)
                if not record.parent_id and record.usage.cost_micros:
                    await self._costs.count(record, response)
                if not record.parent_id:
                    await self._escrow.give_back(record)
            await self._journal.outbox_done(partition, entry_id)
        return len(entries)
