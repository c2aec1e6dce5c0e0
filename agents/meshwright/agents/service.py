"""AgentService: run a task, stream its steps, tell how the agent is."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.agents.desk import Desk, Taken
from meshwright.agents.task import leaf
from meshwright.core.call import DEADLINE
from meshwright.core.channel import MARGIN_S
from meshwright.core.errors import AgentNotFoundError, DeadlineExceededError
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_PARKED, Heartbeat, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_INPUT_REQUIRED, TaskRequest, TaskResponse

TASK_ID_KEY = "x-task-id"
CURSOR_KEY = "last-event-id"
LAST_SEQUENCE = 2**32 - 1
DIGITS = re.compile("[0-9]{1,20}")


def metadata_of(context: Context, key: str) -> str:
    """Returns one text entry of a call's metadata; empty: it was not sent."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return ""


def cursor_of(context: Context, after: int = 0) -> int:
    """Returns where a watch resumes: `last-event-id` metadata wins over the field."""
    text = metadata_of(context, CURSOR_KEY)
    return min(int(text), LAST_SEQUENCE) if DIGITS.fullmatch(text) else after


class AgentService(AgentServiceServicer):
    """Serves one agent; tasks for others are queued for them and followed."""

    def __init__(self, desk: Desk, agent_id: str, health: Callable[[], Awaitable[HealthResponse]]) -> None:
        self._desk = desk
        self._agent_id = agent_id
        self._health = health

    async def RunTask(self, request: TaskRequest, context: Context) -> TaskResponse:
        async with self._desk.watched(request, metadata_of(context, "idempotency-key"), CALLER.get()) as taken:
            await context.send_initial_metadata(((TASK_ID_KEY, taken.name.task_id),))
            await self._wait(taken)
        return await self._desk.response(taken.name)

    async def _wait(self, taken: Taken) -> None:
        """Waits until the task stops, or the call's own time is over."""
        ends = DEADLINE.get()
        limit = asyncio.timeout(None if ends is None else max(0.0, ends - time.monotonic() - MARGIN_S))
        try:
            async with limit:
                await self._until_it_stops(taken)
        except TimeoutError:
            if not limit.expired():
                raise
            message = "no answer within the call's deadline: the task goes on, GetTask tells how it is"
            raise DeadlineExceededError(message, metadata={"task_id": taken.name.task_id}) from None

    async def _until_it_stops(self, taken: Taken) -> None:
        async with contextlib.aclosing(self._desk.follow(taken)) as events:
            async for event in events:
                if event is not None and (event.HasField("result") or await self._waits_for_people(taken, event)):
                    return

    async def _waits_for_people(self, taken: Taken, event: StepEvent) -> bool:
        """Whether the task waits for a person, looked at whenever an event makes that possible."""
        inner = leaf(event)
        if not (inner.HasField("input_requested") or inner.notice.kind == NOTICE_KIND_PARKED):
            return False
        return (await self._desk.record(taken.name)).status == TASK_STATUS_INPUT_REQUIRED

    async def StreamSteps(self, request: TaskRequest, context: Context) -> AsyncGenerator[StepEvent, None]:
        cursor = cursor_of(context)
        async with self._desk.watched(request, metadata_of(context, "idempotency-key"), CALLER.get()) as taken:
            await context.send_initial_metadata(((TASK_ID_KEY, taken.name.task_id),))
            events = self._desk.follow(taken, cursor)
            try:
                async for event in events:
                    cursor = max(cursor, event.sequence if event else 0)
                    yield event or heartbeat(taken.name.task_id, cursor)
            finally:
                await events.aclose()

    async def Health(self, request: HealthRequest, context: Context) -> HealthResponse:
        if request.agent_id not in ("", self._agent_id):
            raise AgentNotFoundError(f"this is {self._agent_id}, not {request.agent_id}")
        return await self._health()


def heartbeat(task_id: str, last_sequence: int) -> StepEvent:
    """Makes the frame that keeps an idle stream open."""
    now = Timestamp()
    now.FromMilliseconds(int(time.time() * 1000))
    return StepEvent(task_id=task_id, time=now, heartbeat=Heartbeat(last_sequence=last_sequence))
