"""Erasure: a session is deleted with everything that came of it. Every step may be repeated after a crash."""

from meshwright.agents.answers import Answers
from meshwright.agents.costs import Costs
from meshwright.agents.journal import LIBRARY, TOMBSTONE_MS, Journal
from meshwright.agents.memory import RELAYED, Memory, Outbox
from meshwright.agents.reader import parse_ref
from meshwright.agents.recall import Origins
from meshwright.agents.session import ACCEPTED_WITHIN_MS, session_of
from meshwright.agents.task import TERMINAL_STATES, TaskName
from meshwright.core.audit import line_of
from meshwright.core.errors import SessionBusyError
from meshwright.core.store import partition_key, partition_of
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionResponse

AT_ONCE = 100
"""Tasks that the store deletes in one step; fewer: they were the last."""


class Erasure:
    """Deletes sessions.

    Args:
        journal: Where tasks are.
        memory: Where sessions are.
        origins: Where memories come from.
        outbox: What ended tasks have cost is counted before nobody can tell any more.
    """

    def __init__(self, journal: Journal, memory: Memory, origins: Origins, outbox: Outbox) -> None:
        self._journal = journal
        self._memory = memory
        self._origins = origins
        self._outbox = outbox
        self._answers = Answers(journal.store)
        self._costs = Costs(journal)

    async def erase(self, name: TaskName, session_id: str) -> DeleteSessionResponse:
        """Deletes a session: answers and memories from it, its tasks, its name in the costs, itself, at last its entry.

        So as long as anything is left it can be found and deleted again.

        Args:
            name: Any task of the holder.
            session_id: The session.

        Raises:
            SessionBusyError: A task of it has not ended; what was deleted before that showed is gone.
        """
        ended = await self._ended(name, session_id)
        await self._note(name, session_id, "begun")
        await self._answers.erase(name, session_id)
        deleted = DeleteSessionResponse(memories=await self._origins.erase(name, session_id))
        for partition in range(self._journal.store.partitions):
            while await self._outbox.relay(partition) == RELAYED:
                pass
            deleted.tasks += await self._erase_tasks(partition, name, session_id)
        await self._costs.forget(name, session_id)
        session = session_of(name, session_id)
        slot, function = partition_key(session, "session"), LIBRARY.function("forget")
        if not await self._journal.store.call(function, slot, session, *(one.ref for one in ended)):
            raise busy(session_id)
        await self._memory.unlist(name, session_id)
        await self._note(name, session_id, "ok", tasks=deleted.tasks, memories=deleted.memories)
        return deleted

    async def _note(self, name: TaskName, session_id: str, outcome: str, **facts: int) -> None:
        """Writes a line before anything is deleted, and one once all is: a session lies in several slots."""
        partition = partition_of(name.tenant, session_id, self._journal.store.partitions)
        about = name.sibling(session_id).ref.partition("/")[2]
        line = line_of(name.principal, outcome, **facts)
        await self._journal.note(partition, name.tenant, "session_deleted", about, line)

    async def _ended(self, name: TaskName, session_id: str) -> list[TaskName]:
        """Returns the tasks in the session's line, all of which have ended.

        Raises:
            SessionBusyError: One of them, or of the session's other tasks, has not.
        """
        store = self._journal.store
        slot = session_of(name, session_id)
        line, since, (seconds, _) = await store.run(
            ("ZRANGE", partition_key(slot, "turns"), 0, -1),
            ("HGETALL", partition_key(slot, "turns", "since")),
            ("TIME",),
        )
        members = await store.run(
            *(
                ("SMEMBERS", partition_key(partition, "members", name.sibling(session_id).ref))
                for partition in range(store.partitions)
            )
        )
        waiting = {ref: int(since.get(ref, 0)) for ref in line}
        refs = [*waiting, *(ref for some in members for ref in some if ref not in waiting)]
        names = [parse_ref(ref.decode()) for ref in refs]
        states = (
            await store.run(
                *(("HGET", partition_key(one.partition(store.partitions), "task", one.ref), "state") for one in names)
            )
            if names
            else []
        )
        for ref, state in zip(refs, states, strict=True):
            is_coming = state is None and int(seconds) * 1000 - waiting.get(ref, 0) <= ACCEPTED_WITHIN_MS
            if is_coming or (state is not None and state.decode() not in TERMINAL_STATES):
                raise busy(session_id)
        return names[: len(waiting)]

    async def _erase_tasks(self, partition: int, name: TaskName, session_id: str) -> int:
        store, gone = self._journal.store, 0
        line = line_of(name.principal, "erased", session=session_id)
        ref = name.sibling(session_id).ref
        slot, function = partition_key(partition, "members", ref), LIBRARY.function("erase")
        while True:
            fresh = int(await store.call(function, slot, partition, ref, TOMBSTONE_MS, line))
            if fresh < 0:
                raise busy(session_id)
            gone += fresh
            if fresh < AT_ONCE:
                return gone


def busy(session_id: str) -> SessionBusyError:
    """Builds the refusal to delete what is in use."""
    told = f"a task of session {session_id}, or one below it, has not ended"
    return SessionBusyError(f"{told}: wait for it, or cancel it, and delete again")
