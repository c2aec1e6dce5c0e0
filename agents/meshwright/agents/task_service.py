"""TaskService: the asynchronous side; every agent serves it, for any task of the mesh."""

import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import replace

import structlog
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format

from meshwright.agents.authority import check_reach
from meshwright.agents.desk import Desk, Taken
from meshwright.agents.reader import Shelf
from meshwright.agents.service import TASK_ID_KEY, cursor_of, heartbeat, metadata_of
from meshwright.agents.task import TaskName
from meshwright.core.admittance import check_others
from meshwright.core.errors import InvalidRequestError, MeshError
from meshwright.core.identity import checked_name
from meshwright.core.ids import TASK_ID, checked
from meshwright.core.interceptors import CALLER, Caller, Context, ends_with
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_INPUT_REQUIRED, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import (
    CancelTaskRequest,
    DropDeadLetterRequest,
    GetCostsRequest,
    GetCostsResponse,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    ResolveInputRequest,
    RetryDeadLetterRequest,
    WatchTaskEventsRequest,
    WatchTaskRequest,
)
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceServicer

log = structlog.get_logger("tasks")
MAX_PAGE, DEFAULT_PAGE = 200, 50
SCANNED = 200
"""Tasks that one filtered page looks at, at the most."""
SSE = "text/event-stream"
STREAM_END_KEY = "x-mesh-stream-end"


def holder_of(method: str, principal: str) -> Caller:
    """Returns in whose name the caller reaches tasks: its own, or that of another principal of its tenant.

    Args:
        method: What it calls.
        principal: Whom it names; empty: itself.

    Raises:
        ScopeMissingError: It names another one, and may not.
        InvalidRequestError: It is no principal's name.
    """
    caller = CALLER.get()
    if principal in ("", caller.principal):
        return caller
    check_others(f"/agents.v1.TaskService/{method}", caller.scopes)
    return replace(caller, principal=checked_name("principal", principal))


def name_of(method: str, task_id: str, principal: str = "") -> TaskName:
    """Names a task of the caller, or of another principal of its tenant.

    Raises:
        InvalidRequestError: It is no task id.
        PermissionDeniedError: The caller holds another call's grant.
        ScopeMissingError: It may not reach another principal's.
    """
    holder = holder_of(method, principal)
    check_reach(holder, task_id)
    return TaskName(holder.tenant, holder.principal, checked("task_id", task_id, TASK_ID))


class TaskService(TaskServiceServicer):
    """Submits, reads, lists, watches and cancels tasks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def SubmitTask(self, request: TaskRequest, context: Context) -> TaskResponse:
        key = metadata_of(context, "idempotency-key")
        taken = await self._desk.queue(request, key, CALLER.get())
        await context.send_initial_metadata(((TASK_ID_KEY, taken.name.task_id),))
        return await self._desk.response(taken.name)

    async def GetTask(self, request: GetTaskRequest, context: Context) -> TaskResponse:
        return await self._desk.response(name_of("GetTask", request.task_id, request.principal))

    async def ListTasks(self, request: ListTasksRequest, context: Context) -> ListTasksResponse:
        if not 0 <= request.page_size <= MAX_PAGE:
            problem = f"must be 1..{MAX_PAGE}, or 0 for {DEFAULT_PAGE}"
            raise InvalidRequestError("page_size is out of range", fields={"page_size": problem})
        size = request.page_size or DEFAULT_PAGE
        holder = holder_of("ListTasks", request.principal)
        cursor = parse_token(request.page_token)
        found: list[TaskResponse] = []
        scanned = 0
        while True:
            rows = await self._desk.page(holder, cursor, size, shelf_of(request))
            names = [TaskName(holder.tenant, holder.principal, task_id) for _, task_id in rows]
            for response in await self._desk.responses(names):
                cursor = (response.create_time.ToMilliseconds(), response.task_id)
                if is_wanted(request, response):
                    found.append(response)
                    if len(found) == size:
                        return ListTasksResponse(tasks=found, next_page_token=token_of(cursor))
            if len(rows) < size:
                return ListTasksResponse(tasks=found)
            cursor = rows[-1]
            scanned += len(rows)
            if scanned >= SCANNED:
                return ListTasksResponse(tasks=found, next_page_token=token_of(cursor))

    def WatchTask(self, request: WatchTaskRequest, context: Context) -> AsyncGenerator[StepEvent, None]:
        cursor = cursor_of(context, request.after_sequence)
        name = name_of("WatchTask", request.task_id, request.principal)
        return self._watch(name, cursor, context, with_deltas=request.include_deltas)

    async def _watch(
        self, name: TaskName, cursor: int, context: Context, *, with_deltas: bool
    ) -> AsyncGenerator[StepEvent, None]:
        """Streams a task; thousands of watches wait in here, and none holds its request or the task's record."""
        is_over = await self._is_over(name, cursor)
        await context.send_initial_metadata(((TASK_ID_KEY, name.task_id),))
        if is_over:
            return
        events = self._desk.follow(Taken(name), cursor)
        try:
            async for event in events:
                if event is None:
                    yield heartbeat(name.task_id, cursor)
                elif with_deltas or event.sequence:
                    cursor = max(cursor, event.sequence)
                    yield event
        finally:
            await events.aclose()

    @ends_with(lambda error: HttpBody(content_type=SSE, data=status_frame(error)))
    def WatchTaskEvents(self, request: WatchTaskEventsRequest, context: Context) -> AsyncGenerator[HttpBody, None]:
        cursor = cursor_of(context, request.after_sequence)
        name = name_of("WatchTaskEvents", request.task_id, request.principal)
        return self._watch_sse(name, cursor, context, with_deltas=request.include_deltas)

    async def _watch_sse(
        self, name: TaskName, cursor: int, context: Context, *, with_deltas: bool
    ) -> AsyncGenerator[HttpBody, None]:
        """Streams a task as `_watch` does, as Server-Sent Events."""
        is_over = await self._is_over(name, cursor)
        ended = ((STREAM_END_KEY, "1"),) if is_over else ()
        await context.send_initial_metadata(((TASK_ID_KEY, name.task_id), *ended))
        if is_over:
            return
        yield HttpBody(content_type=SSE, data=b"retry: 500\n\n")
        events = self._desk.follow(Taken(name), cursor)
        try:
            async for event in events:
                if event is None:
                    yield HttpBody(content_type=SSE, data=b": ping\n\n")
                elif with_deltas or event.sequence:
                    yield HttpBody(content_type=SSE, data=sse_frame(event))
        finally:
            await events.aclose()

    async def _is_over(self, name: TaskName, cursor: int) -> bool:
        """Whether nothing is left to be watched."""
        record = await self._desk.record(name)
        return record.is_terminal and cursor >= record.sequence

    async def CancelTask(self, request: CancelTaskRequest, context: Context) -> TaskResponse:
        name = name_of("CancelTask", request.task_id, request.principal)
        if name.principal != (by := CALLER.get().principal):
            log.info("task_of_another_cancelled", task_id=name.task_id, principal=name.principal, by=by)
        return await self._desk.cancel(name, request.reason[:1024] or "the task was cancelled", CALLER.get())

    async def ResolveInput(self, request: ResolveInputRequest, context: Context) -> TaskResponse:
        name = name_of("ResolveInput", request.task_id, request.principal)
        return await self._desk.resolve(name, request, CALLER.get())

    async def RetryDeadLetter(self, request: RetryDeadLetterRequest, context: Context) -> TaskResponse:
        return await self._desk.retry_dead_letter(name_of("RetryDeadLetter", request.task_id), CALLER.get())

    async def DropDeadLetter(self, request: DropDeadLetterRequest, context: Context) -> TaskResponse:
        return await self._desk.drop_dead_letter(name_of("DropDeadLetter", request.task_id), CALLER.get())

    async def GetCosts(self, request: GetCostsRequest, context: Context) -> GetCostsResponse:
        return await self._desk.costs(request, CALLER.get())


def sse_frame(event: StepEvent) -> bytes:
    """Writes an event as one Server-Sent Event; passing frames carry no id, which would reset the client's cursor."""
    fields = json_format.MessageToDict(
        event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))  # as the edge's transcoder writes it
    name = "event: result\n" if event.HasField("result") else ""
    number = f"id: {event.sequence}\n" if event.sequence else ""
    return f"{number}{name}data: {text}\n\n".encode()


def status_frame(error: MeshError) -> bytes:
    """Writes why a stream ends before its task does as its last Server-Sent Event: a google.rpc.Status, without id."""
    text = json_format.MessageToJson(error.to_status(), preserving_proto_field_name=True, indent=None)
    return f"event: status\ndata: {text}\n\n".encode()


def shelf_of(request: ListTasksRequest) -> Shelf:
    """Returns the shortest list that holds all that a request may want."""
    if request.dead_letters_only:
        return "dead"
    return "inbox" if list(request.statuses) == [TASK_STATUS_INPUT_REQUIRED] else "index"


def is_wanted(request: ListTasksRequest, task: TaskResponse) -> bool:
    """Whether a task passes a listing's filters."""
    created = task.create_time.ToMilliseconds()
    return (
        (not request.agent_id or task.agent_id == request.agent_id)
        and (not request.session_id or task.session_id == request.session_id)
        and (not request.statuses or task.status in request.statuses)
        and (not request.parent_task_id or task.parent_task_id == request.parent_task_id)
        and not (request.roots_only and task.parent_task_id)
        and (not request.HasField("created_after") or created > request.created_after.ToMilliseconds())
        and (not request.HasField("created_before") or created < request.created_before.ToMilliseconds())
    )


def token_of(cursor: tuple[int, str]) -> str:
    """Writes a listing's cursor, a time and an id, as an opaque token."""
    return base64.urlsafe_b64encode(f"{cursor[0]} {cursor[1]}".encode()).decode()


def parse_token(token: str) -> tuple[int, str] | None:
    """Reads a token.

    Raises:
        InvalidRequestError: It was not made by this service.
    """
    if not token:
        return None
    try:
        created, _, task_id = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        return int(created), checked("page_token", task_id, TASK_ID)
    except (ValueError, InvalidRequestError):
        raise InvalidRequestError("page_token is not valid", fields={"page_token": "use next_page_token"}) from None
