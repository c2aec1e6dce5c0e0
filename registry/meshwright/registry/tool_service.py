"""ToolService: what a tool host answers."""

import asyncio

import structlog

from meshwright.core.errors import GrantInvalidError
from meshwright.core.facts import FACT_BYTES, shortened
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import (
    GetOutcomeRequest,
    GetOutcomeResponse,
    InvokeRequest,
    InvokeResponse,
    Progress,
)
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceServicer
from meshwright.registry.host import ToolHost

log = structlog.get_logger("tool_host")


class ToolService(ToolServiceServicer):
    """Serves one host's tools to callers that hold a grant."""

    def __init__(self, host: ToolHost) -> None:
        self._host = host

    async def Invoke(  # type: ignore[override]  # writes by itself: most calls report nothing, and need no second task
        self, request: InvokeRequest, context: Context
    ) -> None:
        pin, reports = f"{request.tool}@{request.version}", Reports(context)
        try:
            outcome = await self._host.invoke(
                granted(pin),
                pin,
                request.arguments_json,
                request.idempotency_key,
                request.intent_digest,
                task_id=request.task_id,
                on_progress=reports.tell,
            )
        except BaseException:
            reports.drop()
            raise
        await reports.close()
        await context.write(InvokeResponse(outcome=outcome))

    async def GetOutcome(self, request: GetOutcomeRequest, context: Context) -> GetOutcomeResponse:
        state, outcome = await self._host.outcome(granted("GetOutcome"), request.idempotency_key)
        return GetOutcomeResponse(state=state, outcome=outcome)


class Reports:
    """Writes reports to a caller while its call goes on; one that was not written yet gives way to a newer one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._latest: Progress | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_dropped = False

    def tell(self, fraction: float, message: str) -> None:
        """Takes a report; a call with effects may go on, and report, when its caller has gone."""
        if self._is_dropped:
            return
        self._latest = Progress(fraction=fraction, message=message)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
            self._writing.add_done_callback(seen)

    async def _write(self) -> None:
        while (latest := self._latest) is not None:
            self._latest = None
            await self._context.write(InvokeResponse(progress=latest))

    async def close(self) -> None:
        """Waits until all is written: two messages cannot be written at once."""
        if self._writing:
            await self._writing

    def drop(self) -> None:
        """Writes no more: the call ends with a status, or its caller has gone."""
        self._is_dropped = True
        if self._writing:
            self._writing.cancel()


def seen(writing: asyncio.Task[None]) -> None:
    """Takes notice of how a write ended: one to a caller that has gone fails, and nobody needs to know."""
    if not writing.cancelled():
        writing.exception()


def granted(asked: str) -> Grant:
    """Returns the grant under which the current call is made; `asked` says what for, in the log.

    Raises:
        GrantInvalidError: There is none. Nobody knows who called: the log tells of it, no tenant's audit does.
    """
    grant = CALLER.get().grant
    if grant is None:
        log.warning("tool_refused", tool=shortened(asked, FACT_BYTES), reason=GrantInvalidError.reason)
        raise GrantInvalidError("a tool host takes calls under a grant only: call InvokeTool at the registry")
    return grant
