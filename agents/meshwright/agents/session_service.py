"""SessionService: what is remembered of conversations; every agent serves it, for any session of the mesh."""

from collections.abc import AsyncGenerator

from meshwright.agents.erasure import Erasure
from meshwright.agents.memory import Memory
from meshwright.agents.recall import Origins
from meshwright.agents.task import TaskName
from meshwright.agents.task_service import parse_token, token_of
from meshwright.core.errors import InvalidRequestError, PermissionDeniedError
from meshwright.core.ids import CALLER_ID, checked
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.session_service_pb2 import (
    DeleteSessionRequest,
    DeleteSessionResponse,
    ExportSessionRequest,
    Fact,
    GetSessionRequest,
    ListSessionsRequest,
    ListSessionsResponse,
    PinFactRequest,
    Session,
    SessionEntry,
    UnpinFactRequest,
    UnpinFactResponse,
)
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceServicer

MAX_PAGE, DEFAULT_PAGE = 200, 50
DEFAULT_TURNS = 20


class SessionService(SessionServiceServicer):
    """Lists, shows, exports and deletes sessions, and pins facts to them."""

    def __init__(self, memory: Memory, origins: Origins, erasure: Erasure) -> None:
        self._memory = memory
        self._origins = origins
        self._erasure = erasure

    async def ListSessions(self, request: ListSessionsRequest, context: Context) -> ListSessionsResponse:
        name, size = holder(), bounded("page_size", request.page_size, DEFAULT_PAGE)
        rows = await self._memory.page(name, parse_token(request.page_token), size)
        sessions = await self._memory.abouts(name, [session_id for _, session_id in rows])
        token = token_of(rows[-1]) if len(rows) == size else ""
        return ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def GetSession(self, request: GetSessionRequest, context: Context) -> Session:
        turns = bounded("turns", request.turns, DEFAULT_TURNS)
        return await self._memory.about(holder(), session_id_of(request.session_id), turns)

    async def ExportSession(
        self, request: ExportSessionRequest, context: Context
    ) -> AsyncGenerator[SessionEntry, None]:
        name, session_id = holder(), session_id_of(request.session_id)
        yield SessionEntry(session=await self._memory.about(name, session_id))
        async for turn in self._memory.turns(name, session_id):
            yield SessionEntry(turn=turn)
        async for memory in self._origins.memories(name, session_id):
            yield SessionEntry(memory=memory)

    async def DeleteSession(self, request: DeleteSessionRequest, context: Context) -> DeleteSessionResponse:
        return await self._erasure.erase(holder(), session_id_of(request.session_id))

    async def PinFact(self, request: PinFactRequest, context: Context) -> Fact:
        return await self._memory.pin(holder(), session_id_of(request.session_id), request.text)

    async def UnpinFact(self, request: UnpinFactRequest, context: Context) -> UnpinFactResponse:
        fact_id = checked("fact_id", request.fact_id, CALLER_ID)
        await self._memory.unpin(holder(), session_id_of(request.session_id), fact_id)
        return UnpinFactResponse()


def holder() -> TaskName:
    """Names the caller, whose sessions alone it sees.

    Raises:
        PermissionDeniedError: It is an agent's task.
    """
    caller = CALLER.get()
    if caller.grant is not None:
        raise PermissionDeniedError("an agent's task does not look after sessions: a person or a program does")
    return TaskName(caller.tenant, caller.principal, "")


def session_id_of(text: str) -> str:
    """Returns a session's id.

    Raises:
        InvalidRequestError: It is none.
    """
    return checked("session_id", text, CALLER_ID)


def bounded(field: str, value: int, default: int) -> int:
    """Returns how many are asked for.

    Raises:
        InvalidRequestError: It is out of range.
    """
    if not 0 <= value <= MAX_PAGE:
        problem = f"must be 1..{MAX_PAGE}, or 0 for {default}"
        raise InvalidRequestError(f"{field} is out of range", fields={field: problem})
    return value or default
