"""The span of a served call, by our own code: what is not kept costs next to nothing."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import grpc
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode

from meshwright.core import tracing
from meshwright.core.sampling import KEPT, TENANT, Rates, is_in
from meshwright.core.trace_ids import TRACE_KEY, TraceIds, name_trace

OURS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What is a failure of the server, by OpenTelemetry's conventions; the rest is the caller's."""


class ServedSpans:
    """Gives the calls of a server their spans.

    Args:
        rates: Which traces are kept.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._ids = TraceIds()

    def unary(self, method: str, call: Any) -> Any:
        """Wraps a unary method; `method` is `/package.Service/Name`."""

        async def traced(request: Any, context: Any) -> Any:
            span = self._begin(method, context)
            try:
                return await call(request, context)
            finally:
                if span.is_recording():
                    end(span, context)

        return traced

    def stream(self, method: str, call: Any) -> Any:
        """Wraps a method that streams."""

        async def traced(request: Any, context: Any) -> AsyncIterator[Any]:
            span = self._begin(method, context)
            responses = call(request, context)
            try:
                async for response in responses:
                    yield response
            finally:
                await responses.aclose()
                if span.is_recording():
                    end(span, context)

        return traced

    def _begin(self, method: str, context: Any) -> Span:
        """Begins the span of a call; its context need not be left, since it ends with the call."""
        parent, tenant = incoming(context)
        trace_id = parent.trace_id or self._ids.generate_trace_id()
        if not is_in(trace_id, self._rates.share(tenant, parent)):
            span_id = parent.span_id or random.getrandbits(64)
            span: Span = NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=False))
        else:
            span = started(method, parent, tenant, trace_id)
        contexts.attach(trace.set_span_in_context(span))
        return span


def started(method: str, parent: SpanContext, tenant: str, trace_id: int) -> Span:
    """Starts the span of a call that is kept."""
    assert tracing.tracer
    if not parent.is_valid:
        name_trace(trace.format_trace_id(trace_id))
    above = trace.set_span_in_context(NonRecordingSpan(parent), contexts.Context({KEPT: True, TENANT: tenant}))
    service, _, name = method[1:].partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    return tracing.tracer.start_span(method, above, SpanKind.SERVER, attributes)


def incoming(context: Any) -> tuple[SpanContext, str]:
    """Returns the span that a call comes from, not valid where there is none, and whose it is, as the edge says.

    Where the edge has named the trace of a call that comes from none, the name is heard.
    """
    header = tenant = ""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            header = value
        elif key == tracing.TENANT_KEY:
            tenant = unquote(value)
        elif key == TRACE_KEY:
            name_trace(value)
    return tracing.remote(header) if header else trace.INVALID_SPAN_CONTEXT, tenant


def end(span: Span, context: Any) -> None:
    """Ends a call's span with its status: the code alone, since its words may hold content."""
    code = context.code()
    if isinstance(sys.exception(), asyncio.CancelledError):
        is_late = context.time_remaining() == 0
        code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
    if not isinstance(code, grpc.StatusCode):
        code = grpc.StatusCode.OK
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code in OURS:
        span.set_status(StatusCode.ERROR)
    span.end()
