"""ToolService: what a tool host answers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

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
    Outcome,
    Progress,
)
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceServicer
from meshwright.registry.host import ToolHost

log = structlog.get_logger("tool_host")


class ToolService(ToolServiceServicer):
    """Serves one host's tools to callers that hold a grant."""

    def __init__(self, host: ToolHost) -> None:
        self._host = host

    async def Invoke(self, request: InvokeRequest, context: Context) -> AsyncIterator[InvokeResponse]:
        latest, news = deque[Progress](maxlen=1), asyncio.Event()

        def tell(fraction: float, message: str) -> None:
            latest.append(
                Progress(fraction=fraction, message=message)
            )  # one that was not read yet is of no interest any more
            news.set()

        def end(ended: asyncio.Task[Outcome]) -> None:
            news.set()
            if not ended.cancelled():
                ended.exception()  # seen, also where nobody waits for it any more

        pin = f"{request.tool}@{request.version}"
        grant = granted(pin)
        work = asyncio.create_task(
            self._host.invoke(
                grant,
                pin,
                request.arguments_json,
                request.idempotency_key,
                request.intent_digest,
                task_id=request.task_id,
                on_progress=tell,
            )
        )
        work.add_done_callback(end)
        try:
            while not work.done():
                await news.wait()
                news.clear()
                while latest:
                    yield InvokeResponse(progress=latest.popleft())
            yield InvokeResponse(outcome=work.result())
        finally:
            work.cancel()

    async def GetOutcome(self, request: GetOutcomeRequest, context: Context) -> GetOutcomeResponse:
        state, outcome = await self._host.outcome(granted("GetOutcome"), request.idempotency_key)
        return GetOutcomeResponse(state=state, outcome=outcome)


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
