"""Sessions: the tasks of one conversation take turns, and each leaves its turn in memory, once."""

from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.reader import parse_ref
from meshwright.agents.shortening import shortened
from meshwright.agents.task import TaskName
from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import DataLossError, SessionBusyError, TaskNotFoundError
from meshwright.core.seals import Seals
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse

KEPT_TURNS = 1_000
SUMMARY = "summary"
KEPT_MS = 30 * 86_400_000
MAX_TURN_CHARS = 16_384
"""Of a prompt and of an output as a session keeps them; the task's own record has all of it as long as it is kept."""
ACCEPTED_WITHIN_MS = 10_000
"""A task may stand in line that long before it is accepted; after that its caller is taken for lost."""


def session_of(name: TaskName, session_id: str) -> str:
    """Names the slot of a session: its holder is part of it."""
    return segment(name.sibling(session_id).ref)


def place_of(name: TaskName, session_id: str) -> SealPlace:
    """Names where a session's data key stands."""
    return SealPlace(name.tenant, partition_key(session_of(name, session_id), "seal"))


def about_of(name: TaskName, session_id: str) -> str:
    """Spells what is there as long as a session is."""
    return partition_key(session_of(name, session_id), "session", "about")


def prompt_of(task_id: str) -> str:
    """Says which turn's prompt one is."""
    return f"prompt/{task_id}"


def output_of(task_id: str) -> str:
    """Says which turn's output one is."""
    return f"output/{task_id}"


class Sessions:
    """The lines in front of sessions. A session lies in a slot of its own, so every step here may be repeated."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._seals = Seals(journal.store)

    async def enter(self, name: TaskName, session_id: str, *, is_alone: bool = False) -> tuple[TaskName, int]:
        """Puts a task into the line, once; returns who is at its head, and for how long (ms) it has stood there.

        Args:
            name: The task.
            session_id: Its session.
            is_alone: Only if nobody stands there.
        """
        session = session_of(name, session_id)
        slot = partition_key(session, "turns")
        function = LIBRARY.function("enter")
        head, age = await self._journal.store.call(function, slot, session, name.ref, int(is_alone), KEPT_MS)
        return parse_ref(head.decode()), age

    async def is_turn(self, name: TaskName, session_id: str, *, is_alone: bool = False) -> bool:
        """Whether a task is at the head of its line; heads that have ended make room."""
        while True:
            head, age = await self.enter(name, session_id, is_alone=is_alone)
            if head == name:
                return True
            if not await self._has_left(head, session_id, age):
                return False

    async def check_free(self, name: TaskName, session_id: str) -> None:
        """Takes the head of the line.

        Raises:
            SessionBusyError: Another task stands there.
        """
        if not await self.is_turn(name, session_id, is_alone=True):
            raise SessionBusyError(
                f"another task of session {session_id} has not ended: wait, or SESSION_POLICY_ENQUEUE"
            )

    async def _has_left(self, head: TaskName, session_id: str, age_ms: int) -> bool:
        """Lets a head go that has ended, or was never accepted."""
        try:
            record = await self._journal.record(head)
        except TaskNotFoundError:
            if age_ms > ACCEPTED_WITHIN_MS:
                await self.abandon(head, session_id)
            return age_ms > ACCEPTED_WITHIN_MS
        except DataLossError:  # it can leave nothing, and keeps nobody waiting
            await self.abandon(head, session_id)
            return True
        if record.is_terminal:
            await self.leave(head, record.request, await self._journal.response(head))
        return record.is_terminal

    async def leave(self, name: TaskName, request: TaskRequest, response: TaskResponse) -> None:
        """Ends a task's turn: what it said is remembered, and the next one is woken."""
        if request.session_id:
            output = response.output if response.status == TASK_STATUS_COMPLETED else ""
            place = place_of(name, request.session_id)

            async def put(seal: Seal) -> None:
                prompt = seal.encrypt(prompt_of(name.task_id), shortened(request.prompt, MAX_TURN_CHARS).encode())
                said = (
                    seal.encrypt(output_of(name.task_id), shortened(output, MAX_TURN_CHARS).encode()) if output else b""
                )
                facts = (name.task_id, response.agent_id, prompt, said, KEPT_TURNS, KEPT_MS, seal.wrapped)
                await self._step_out("leave", name, request.session_id, *facts)

            await self._seals.write(place, [about_of(name, request.session_id)], put)

    async def abandon(self, name: TaskName, session_id: str) -> None:
        """Takes a task out of the line that was not accepted after all."""
        await self._step_out("abandon", name, session_id)

    async def _step_out(self, function: str, name: TaskName, session_id: str, *facts: str | int | bytes) -> None:
        session = session_of(name, session_id)
        slot = partition_key(session, "turns")
        head = await self._journal.store.call(LIBRARY.function(function), slot, session, name.ref, *facts)
        if head:
            await self._journal.nudge(parse_ref(head.decode()))
