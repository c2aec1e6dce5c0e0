"""What stands around every call of every service, outermost first: see `server.interceptors`."""

import asyncio
import contextlib
import inspect
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from meshwright.core import telemetry
from meshwright.core.errors import (
    DETAILS_KEY,
    AbortedError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    MeshError,
    OverloadedError,
)
from meshwright.core.grant import METADATA_KEY, Verifier
from meshwright.gen.agents.v1.grant_pb2 import Grant

log = structlog.get_logger("call")
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

Continuation = Callable[[Any], Awaitable[Any]]
Read = Callable[[Any], Any]
DEFAULT_DEADLINE_S = 60.0
OVERLOAD_RETRY_S = 1.0
PROBES = "/grpc.health.v1.Health/"
OWN_DEADLINE = frozenset({"/agents.v1.AgentService/RunTask"})
"""Methods whose wait is bounded by the task's own timeout instead of the default deadline."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: an outside principal, or an agent under a grant."""

    tenant: str = "default"
    principal: str = "default"
    grant: Grant | None = None


CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 - frozen
DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the current call must have ended, on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method as it is called: `/agents.v1.AgentService/Health`."""

    name: str
    is_stream: bool


class Layer(Protocol):
    """What a call runs inside of."""

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Returns the context of one call."""
        ...


class Layers(grpc.aio.ServerInterceptor):
    """Wraps every handler, once, into all that stands around a call: a message passes one frame, not one a layer.

    Args:
        layers: Outermost first. Requests are read inside of all of them.
    """

    def __init__(self, *layers: Layer) -> None:
        self._layers = layers
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Continuation, handler_call_details: Any) -> Any:
        """Wraps one handler; unknown methods stay unknown, and reflection, which alone streams requests, as it is."""
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is not None:
            return wrapped
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        read = reader(handler.request_deserializer)
        method = Method(name, is_stream=not handler.unary_unary)
        if handler.unary_unary:
            made: Any = grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary, read), response_serializer=handler.response_serializer
            )
        else:
            made = grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream, read), response_serializer=handler.response_serializer
            )
        self._wrapped[name] = made
        return made

    def _unary(self, method: Method, behavior: Any, read: Read) -> Any:
        async def unary(request: Any, context: Context) -> Any:
            async with contextlib.AsyncExitStack() as stack:
                for layer in self._layers:
                    await stack.enter_async_context(layer.around(method, context))
                return await behavior(read(request), context)

        return unary

    def _stream(self, method: Method, behavior: Any, read: Read) -> Any:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with contextlib.AsyncExitStack() as stack:
                for layer in self._layers:
                    await stack.enter_async_context(layer.around(method, context))
                responses = behavior(read(request), context)
                if inspect.isawaitable(responses):  # it writes to the context itself, as health.Watch does
                    await responses
                    return
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        yield response

        return stream


def reader(deserialize: Read | None) -> Read:
    """Reads requests so that a malformed one is the caller's error."""

    def read(request: bytes) -> Any:
        try:
            return deserialize(request) if deserialize else request
        except DecodeError:
            raise InvalidRequestError("the request is no protobuf message of the expected type") from None

    return read


class Around:
    """A layer's context for one call: a plain object, since a stream that waits holds five of them."""

    __slots__ = ("context", "method")

    def __init__(self, method: Method, context: Context) -> None:
        self.method = method
        self.context = context

    async def __aenter__(self) -> None:
        """Begins the call."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""


class ErrorBoundary:
    """Turns every way to fail into a status: ours as they are, all else into INTERNAL with an id to look up.

    A CancelledError that leaks from the handler would leave the caller hanging: it becomes ABORTED; one by which the
    call itself is cancelled passes. A request that is no protobuf is read in here, so that it becomes
    INVALID_ARGUMENT rather than UNKNOWN.
    """

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Ends the call with a status where it fails."""
        return Bounded(method, context)


class Bounded(Around):
    """The error boundary of one call."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turns the failure, if there is one, into a status."""
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task and task.cancelling():
                return
            await abort(self.context, AbortedError("the server broke this call off; try again"))
        if error is None or isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
            return
        if isinstance(error, MeshError) and not isinstance(error, InternalError):
            await abort(self.context, error)
        error_id = secrets.token_hex(6)
        log.error("call_failed", method=self.method.name, error_id=error_id, exc_info=error)
        await abort(self.context, InternalError(f"internal error {error_id}: the server's log says more"))


async def abort(context: Context, error: MeshError) -> None:
    """Ends a call with the error's status and its details; HTTP clients behind the edge read `retry-after`."""
    status = error.to_status()
    trailing: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if error.retry_after_s is not None:
        trailing.append(("retry-after", str(math.ceil(error.retry_after_s))))
    await context.abort(error.code, status.message, tuple(trailing))


class Admission:
    """Refuses what goes beyond a bound of calls at once, before it is even read: what is in flight must not suffer.

    Probes and reflection are never refused.

    Args:
        max_calls: Unary calls at once.
        max_streams: Streams at once; most of them wait, and cost little.
    """

    def __init__(self, max_calls: int, max_streams: int) -> None:
        self._limits = {"calls": max_calls, "streams": max_streams}
        self._open = {"calls": 0, "streams": 0}

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Counts the call while it is open."""
        return Admitted(self, method, context)

    async def enter(self, kind: str, context: Context) -> None:
        """Takes a place, or refuses."""
        if self._open[kind] >= self._limits[kind]:
            told = f"{self._limits[kind]} {kind} at once are what this process serves: try again in a moment"
            await abort(context, OverloadedError(told, retry_after_s=OVERLOAD_RETRY_S))
        self._open[kind] += 1

    def leave(self, kind: str) -> None:
        """Gives a place back."""
        self._open[kind] -= 1


class Admitted(Around):
    """The place of one call; probes need none."""

    __slots__ = ("_admission", "_kind")

    def __init__(self, admission: Admission, method: Method, context: Context) -> None:
        super().__init__(method, context)
        self._admission = admission
        self._kind = "streams" if method.is_stream else "calls"

    async def __aenter__(self) -> None:
        """Takes it."""
        if not self.method.name.startswith(PROBES):
            await self._admission.enter(self._kind, self.context)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives it back."""
        if not self.method.name.startswith(PROBES):
            self._admission.leave(self._kind)


class Deadline:
    """Makes sure that every unary call ends, and lets outgoing calls know how much time is left."""

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Imposes the default where the caller set no deadline; streams may stay open."""
        return Limited(method, context)


class Limited(Around):
    """The deadline of one call; the call's own context ends with it, so nothing has to be put back."""

    __slots__ = ("_limit",)

    async def __aenter__(self) -> None:
        """Sets `DEADLINE`."""
        remaining = self.context.time_remaining()
        imposed = DEFAULT_DEADLINE_S if remaining is None and not may_stay_open(self.method.name) else None
        remaining = imposed if remaining is None else remaining
        DEADLINE.set(None if remaining is None else time.monotonic() + remaining)
        self._limit = asyncio.timeout(imposed) if imposed else None
        if self._limit:
            await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says so where the imposed time was over."""
        if self._limit is None:
            return
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            raise DeadlineExceededError(f"no answer within {DEFAULT_DEADLINE_S:g} s") from None


def may_stay_open(method: str) -> bool:
    """Whether a call without a deadline gets none: its task's timeout bounds it, or it is a stream to be watched."""
    return method in OWN_DEADLINE or method.rpartition("/")[2].startswith(("Watch", "Stream"))


class Principal:
    """Learns who is calling: from a signed grant inside the mesh, else the development principal."""

    def __init__(self, verifier: Verifier | None) -> None:
        self._verifier = verifier

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Sets `CALLER` for the time of the call."""
        return Known(self, method, context)

    async def caller(self, context: Context) -> Caller:
        """Reads who is calling from a call's metadata."""
        for key, value in context.invocation_metadata() or ():
            if key == METADATA_KEY and self._verifier and isinstance(value, bytes):
                grant = await self._verifier.verify(value)
                return Caller(grant.tenant, grant.principal, grant)
        return Caller()


class Known(Around):
    """The caller of one call."""

    __slots__ = ("_principal",)

    def __init__(self, principal: Principal, method: Method, context: Context) -> None:
        super().__init__(method, context)
        self._principal = principal

    async def __aenter__(self) -> None:
        """Sets `CALLER`."""
        CALLER.set(await self._principal.caller(self.context))


class Measure:
    """Counts calls and their time, per method and status."""

    def around(self, method: Method, context: Context) -> AbstractAsyncContextManager[None]:
        """Observes one call."""
        return Measured(method, context)


class Measured(Around):
    """The time of one call."""

    __slots__ = ("_start",)

    async def __aenter__(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Counts the call."""
        code: Any = self.context.code()
        if isinstance(error, asyncio.CancelledError):
            is_late = self.context.time_remaining() == 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        name = code.name if isinstance(code, grpc.StatusCode) else "OK"
        telemetry.CALLS.labels(self.method.name, name).inc()
        telemetry.CALL_SECONDS.labels(self.method.name).observe(time.perf_counter() - self._start)
