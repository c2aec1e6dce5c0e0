"""What stands around every call of every service: see `Guard`."""

import asyncio
import contextlib
import inspect
import math
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from meshwright.core import telemetry
from meshwright.core.access import rule_of
from meshwright.core.admittance import check_carrier, check_grant, check_process, check_scope, role_of
from meshwright.core.bound import LIMIT, Bound
from meshwright.core.call import DEADLINE, METADATA_KEY
from meshwright.core.errors import (
    DETAILS_KEY,
    REASON_KEY,
    AbortedError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    MeshError,
    OverloadedError,
)
from meshwright.core.grant import Verifier
from meshwright.core.identity import IDENTITY_KEY, IdentityVerifier
from meshwright.core.limit import Limit
from meshwright.core.scope import EVERYTHING
from meshwright.core.stay import Stays
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.identity_pb2 import Identity

log = structlog.get_logger("call")
if TYPE_CHECKING:
    from meshwright.core.served_span import ServedSpans

    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

Read = Callable[[Any], Any]
Stream = TypeVar("Stream", bound=Callable[..., Any])
LAST_WORDS = "_last_words"
"""Under this name a method has what writes the message with which its stream ends where it fails."""
DEFAULT_DEADLINE_S = 60.0
IDENTIFYING = frozenset({METADATA_KEY, IDENTITY_KEY})
OVERLOAD_RETRY_S = 1.0
PROBES = "/grpc.health.v1.Health/"
UNLIMITED: AbstractContextManager[object] = contextlib.nullcontext()
OWN_DEADLINE = frozenset({"/agents.v1.AgentService/RunTask"})
"""Methods whose wait is bounded by the task's own timeout instead of the default deadline."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: an outside principal, or an agent under a grant."""

    tenant: str = "default"
    principal: str = "default"
    grant: Grant | None = None
    scopes: frozenset[str] = frozenset({EVERYTHING})
    """What it may do by itself; under a grant nothing, whatever scopes the grant holds: those are for tools."""
    token: bytes = field(default=b"", repr=False, compare=False)
    """The grant as it was signed."""

    @property
    def tool_scopes(self) -> list[str]:
        """Scopes under which tools are called in its name, sorted."""
        return sorted(set(self.grant.scopes) if self.grant else self.scopes)


CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 - frozen


class Guard(grpc.GenericRpcHandler):
    """The methods of a server, each wrapped, once, into what stands around a call.

    From the outside: it is counted and timed, has a place among those that are served at once, is answered with a
    status whatever fails, ends in time, and knows who is calling; what may stay open ends with the key or token that
    has opened it. A request is read inside of all of that.

    Generated code adds services to it as to a server. Methods are found by name: one that is registered with gRPC
    costs every call of every other method, since the server waits for all of them anew each time.
    """

    def __init__(
        self, admission: "Admission", principal: "Principal", stays: Stays, spans: "ServedSpans | None" = None
    ) -> None:
        self._admission = admission
        self._principal = principal
        self._stays = stays
        self._spans = spans
        self._handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Wraps the methods of a service."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._handlers[method] = self._wrapped(method, handler)

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Takes nothing: generated code hands over each service both ways."""

    def service(self, handler_call_details: Any) -> Any:
        """Returns the wrapped method that is called; None: there is none of that name."""
        return self._handlers.get(handler_call_details.method)

    def _wrapped(self, method: str, handler: Any) -> Any:
        read, write = reader(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary:
            call = self._unary(method, handler.unary_unary, read)
            call = self._spans.unary(method, call) if self._spans else call
            return grpc.unary_unary_rpc_method_handler(call, response_serializer=write)
        stream = self._stream(method, handler.unary_stream, read)
        stream = self._spans.stream(method, stream) if self._spans else stream
        return grpc.unary_stream_rpc_method_handler(stream, response_serializer=write)

    def _unary(self, method: str, behavior: Any, read: Read) -> Any:
        places, default_s = self._admission.places(method, is_stream=False), default_of(method)
        may_stay_open = default_s is None

        async def unary(request: Any, context: Context) -> Any:
            start = time.perf_counter()
            try:
                places.take()
                try:
                    with limited(context, default_s):
                        caller = await self._principal.learn(method, context)
                        log.debug("call_accepted", method=method)
                        with self._stays.of(caller) if may_stay_open else UNLIMITED:
                            return await behavior(read(request), context)
                finally:
                    places.give_back()
            except BaseException as error:
                await answer(error, method, context)
                raise
            finally:
                count(method, context, start)

        return unary

    def _stream(self, method: str, behavior: Any, read: Read) -> Any:
        places, default_s = self._admission.places(method, is_stream=True), default_of(method)
        still_open = telemetry.STREAMS_OPEN.labels(method)
        writes_itself = inspect.iscoroutinefunction(behavior)  # as health.Watch does
        last_words: Callable[[MeshError], Any] | None = getattr(behavior, LAST_WORDS, None)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            start = time.perf_counter()
            has_begun = False
            try:
                places.take()
                still_open.inc()
                try:
                    with limited(context, default_s):
                        caller = await self._principal.learn(method, context)
                        log.debug("call_accepted", method=method)
                        with self._stays.of(caller) as stay:
                            responses = behavior(read(request), context)
                            if writes_itself:
                                await responses
                                return
                            try:
                                async for response in responses:
                                    has_begun = stay.is_sending = True
                                    yield response
                                    stay.sent()
                            finally:
                                await responses.aclose()
                finally:
                    still_open.dec()
                    places.give_back()
            except BaseException as error:
                if last_words and has_begun and is_told(error):
                    yield last_words(error)
                await answer(error, method, context, is_late=has_begun)
                raise
            finally:
                count(method, context, start)

        return stream


def reader(deserialize: Read | None) -> Read:
    """Reads requests so that a malformed one is the caller's error."""

    def read(request: bytes) -> Any:
        try:
            return deserialize(request) if deserialize else request
        except DecodeError:
            raise InvalidRequestError("the request is no protobuf message of the expected type") from None

    return read


def count(method: str, context: Context, start: float) -> None:
    """Counts and logs a call that ends, per method and status; called where what it ends with passes by."""
    code: Any = context.code()
    if isinstance(sys.exception(), asyncio.CancelledError):
        code = grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED
    name = code.name if isinstance(code, grpc.StatusCode) else "OK"
    telemetry.CALLS.labels(method, name).inc()
    seconds = time.perf_counter() - start
    telemetry.CALL_SECONDS.labels(method).observe(seconds, telemetry.EXEMPLARS.of(seconds))
    log.debug("call_answered", method=method, code=name, ms=round(seconds * 1000))


class Places:
    """A bound of calls at once, each of which holds a place while it is open.

    Args:
        limit: How many there are.
        kind: What takes them: `calls`, `streams`.
    """

    def __init__(self, limit: float, kind: str) -> None:
        self._limit = limit
        self._kind = kind
        self._taken = 0

    def take(self) -> None:
        """Takes a place.

        Raises:
            OverloadedError: There is none.
        """
        if self._taken >= self._limit:
            told = f"{self._limit} {self._kind} at once are what this process serves: try again in a moment"
            raise OverloadedError(told, metadata={LIMIT: Bound.PROCESS}, retry_after_s=OVERLOAD_RETRY_S)
        self._taken += 1

    def give_back(self) -> None:
        """Gives a place back."""
        self._taken -= 1


class Admission:
    """Refuses what goes beyond a bound of calls at once, before it is even read: what is in flight must not suffer.

    Probes and reflection are never refused.

    Args:
        max_calls: Unary calls at once.
        max_streams: Streams at once; most of them wait, and cost little.
    """

    def __init__(self, max_calls: int, max_streams: int) -> None:
        self._calls = Places(max_calls, "calls")
        self._streams = Places(max_streams, "streams")
        self._probes = Places(math.inf, "probes")

    def places(self, method: str, *, is_stream: bool) -> Places:
        """Returns those of which every call of a method takes one."""
        if method.startswith(PROBES):
            return self._probes
        return self._streams if is_stream else self._calls


def ends_with(write: Callable[[MeshError], Any]) -> Callable[[Stream], Stream]:
    """Has a stream that has begun say why it ends before its time, to those who read no status behind a stream.

    Args:
        write: Makes its last message.
    """

    def mark(stream: Stream) -> Stream:
        setattr(stream, LAST_WORDS, write)
        return stream

    return mark


def is_told(error: BaseException) -> TypeGuard[MeshError]:
    """Whether a caller reads an error as it is."""
    return isinstance(error, MeshError) and not isinstance(error, InternalError)


async def answer(error: BaseException, method: str, context: Context, *, is_late: bool = False) -> None:
    """Ends a call that failed with a status: our errors as they are, all else as INTERNAL with an id to look up.

    A CancelledError that leaks from the handler would leave the caller hanging: it becomes ABORTED; one by which the
    call itself is cancelled passes.

    Raises:
        asyncio.CancelledError: The caller has gone, which gRPC notices where it sends before the handler is cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if not (task and task.cancelling()):
            await abort(context, AbortedError("the server broke this call off; try again"), is_late=is_late)
    if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):
        return
    if is_told(error):
        await abort(context, error, is_late=is_late)
    error_id = secrets.token_hex(6)

    def tell() -> None:
        log.error("call_failed", method=method, error_id=error_id, exc_info=error)

    may_be_gone = isinstance(error, grpc.aio.InternalError)  # with a caller that is there it is a failure like others
    if not may_be_gone:
        tell()
    try:
        await abort(context, InternalError(f"internal error {error_id}: the server's log says more"), is_late=is_late)
    except grpc.aio.AbortError:
        if may_be_gone:
            tell()
        raise


async def abort(context: Context, error: MeshError, *, is_late: bool = False) -> None:
    """Ends a call with the error's status and its details; HTTP clients behind the edge read `retry-after`.

    The edge's log has the reason of what has not begun: from trailers behind messages the edge could not take it out.

    Raises:
        grpc.aio.AbortError: The call has ended so.
        asyncio.CancelledError: It had ended already: the caller has gone.
    """
    status = error.to_status()
    trailing: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if not is_late:
        trailing.append((REASON_KEY, error.reason))
    if error.retry_after_s is not None:
        trailing.append(("retry-after", str(math.ceil(error.retry_after_s))))
    try:
        await context.abort(error.code, status.message, tuple(trailing))
    except grpc.aio.InternalError as gone:
        raise asyncio.CancelledError from gone


def limited(context: Context, default_s: float | None) -> AbstractContextManager[object]:
    """Lets outgoing calls know how much time is left; imposes the default where the caller set no deadline.

    `DEADLINE` need not be put back: the call's own context ends with it.
    """
    remaining = context.time_remaining()
    if remaining is not None:
        DEADLINE.set(time.monotonic() + remaining)
    elif default_s is not None:
        DEADLINE.set(time.monotonic() + default_s)
        return Imposed(default_s)
    return UNLIMITED


def default_of(method: str) -> float | None:
    """Returns the deadline of calls without one; None: a task's timeout bounds them, or streams are to be watched."""
    may_stay_open = method in OWN_DEADLINE or method.rpartition("/")[2].startswith(("Watch", "Stream"))
    return None if may_stay_open else DEFAULT_DEADLINE_S


class Imposed(Limit):
    """A deadline that the server imposes on a call."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says so where the time was over.

        Raises:
            DeadlineExceededError: It was, and nobody else cancelled the call.
        """
        try:
            super().__exit__(kind, error, trace)
        except TimeoutError:
            raise DeadlineExceededError(f"no answer within {self.after_s:g} s") from None


class Principal:
    """Learns who is calling: by a grant inside of the mesh, by an identity from outside of it; else by nothing.

    Args:
        verifier: Checks grants, and knows whose key is whose; None: a service that takes neither.
        is_required: Whether a call has to say who makes it; else one that does not is the development principal's.
    """

    def __init__(self, verifier: Verifier | None, *, is_required: bool = False) -> None:
        self._verifier = verifier
        self._identities = IdentityVerifier(verifier.lookup) if verifier else None
        self._is_required = is_required

    async def learn(self, method: str, context: Context) -> Identity | None:
        """Sets `CALLER` for the time of the call, and holds it against the method's rule.

        Returns:
            Who calls from outside; None: somebody else does.

        Raises:
            GrantInvalidError: The grant is no good.
            IdentityInvalidError: The identity is no good.
            CredentialsMissingError: There is neither, and the method is not for everybody.
            PermissionDeniedError: The method is not for this kind of caller.
            ScopeMissingError: The caller lacks a scope; names it.
        """
        if self._verifier is None or self._identities is None:
            return None
        rule = rule_of(method)
        sent = {key: value for key, value in context.invocation_metadata() or () if key in IDENTIFYING}
        token, identity = sent.get(METADATA_KEY), sent.get(IDENTITY_KEY)
        if isinstance(token, bytes):
            grant = await self._verifier.verify(token)
            check_grant(rule, grant)
            CALLER.set(Caller(grant.tenant, grant.principal, grant, frozenset(), token))
            structlog.contextvars.bind_contextvars(task_id=grant.task_id)  # as long as the call's own context
        elif isinstance(identity, bytes):
            check_carrier(role_of(context))
            known = await self._identities.verify(identity)
            scopes = frozenset(known.scopes)
            check_scope(method, rule, scopes)
            CALLER.set(Caller(known.tenant, known.principal, None, scopes))
            return known
        elif self._is_required and not rule.is_open:
            check_process(method, rule, role_of(context))
            CALLER.set(Caller("", "", None, frozenset({rule.scope})))
        return None
