"""ToolService: what a tool host answers."""

from collections.abc import AsyncIterator

from meshwright.core.errors import GrantInvalidError
from meshwright.core.interceptors import CALLER, Context
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import (
    GetOutcomeRequest,
    GetOutcomeResponse,
    InvokeRequest,
    InvokeResponse,
)
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceServicer
from meshwright.registry.host import ToolHost


class ToolService(ToolServiceServicer):
    """Serves one host's tools to callers that hold a grant."""

    def __init__(self, host: ToolHost) -> None:
        self._host = host

    async def Invoke(self, request: InvokeRequest, context: Context) -> AsyncIterator[InvokeResponse]:
        pin = f"{request.tool}@{request.version}"
        outcome = await self._host.invoke(
            granted(), pin, request.arguments_json, request.idempotency_key, request.intent_digest
        )
        yield InvokeResponse(outcome=outcome)

    async def GetOutcome(self, request: GetOutcomeRequest, context: Context) -> GetOutcomeResponse:
        state, outcome = await self._host.outcome(granted(), request.idempotency_key)
        return GetOutcomeResponse(state=state, outcome=outcome)


def granted() -> Grant:
    """Returns the grant under which the current call is made.

    Raises:
        GrantInvalidError: There is none.
    """
    grant = CALLER.get().grant
    if grant is None:
        raise GrantInvalidError("a tool host takes calls under a grant only: call InvokeTool at the registry")
    return grant
