"""Traces: one from the edge through agents, children and tools, across the queue and the loss of a worker.

Spans say who did what for how long, never what was said: no prompt, answer, argument or result is in one.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, default_getter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes, AttributeValue

from meshwright.core.settings import Settings, semantic_conventions

if TYPE_CHECKING:
    import grpc
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from meshwright.core.sampling import Rates

W3C = TraceContextTextMapPropagator()
NANOS = 1_000_000
"""Nanoseconds of a millisecond."""
UNTRACED: AbstractContextManager[trace.Span] = nullcontext(trace.INVALID_SPAN)
"""Stands for every span of a process that makes none."""
tracer: trace.Tracer | None = None
"""Makes this process's spans, where it makes any."""
outlet: "Outlet | None" = None
"""Where they leave this process, where they do."""
has_store_spans = False
"""Whether what a traced call asks of the store has spans of its own."""
conventions: frozenset[str] = frozenset()
"""Conventions that are not stable yet, and that this process has opted in to."""
TENANT_KEY = "x-mesh-tenant"
"""Metadata in which the edge says whose a call is; what clients send under that name it throws away."""
GEN_AI = "gen_ai_latest_experimental"


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where spans leave a process.

    Attributes:
        processor: Sends them, several at once.
        resource: The process that they are of.
    """

    processor: "BatchSpanProcessor"
    resource: "Resource"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One worker's part in a task, as the task's journal tells of it.

    Attributes:
        span_id: Of its span, 16 hex digits; empty: nothing that it wrote names one.
        number: Which attempt.
        start_ms: When it first wrote, Unix time.
        end_ms: When it last wrote.
    """

    span_id: str
    number: int
    start_ms: int
    end_ms: int


def configure(settings: Settings, service: str, instance: str) -> None:
    """Makes trace ids; spans leave the process only towards an OTLP endpoint."""
    from opentelemetry import propagate
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from meshwright.core.trace_ids import TraceIds

    global tracer, outlet, conventions, has_store_spans  # noqa: PLW0603 - one a process, as the provider itself
    conventions = semantic_conventions()
    has_store_spans = settings.store_spans
    resource = Resource({"service.name": f"meshwright-{service}", "service.instance.id": instance})
    provider = TracerProvider(sampler=rates_of(settings), resource=resource, id_generator=TraceIds())
    propagate.set_global_textmap(Incoming())
    if endpoint := settings.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")))
        provider.add_span_processor(processor)
        outlet = Outlet(processor, resource)
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("meshwright")


def rates_of(settings: Settings) -> "Rates":
    """Returns which traces are kept, as the settings say."""
    from meshwright.core.sampling import Rates

    return Rates(settings.trace_rate, settings.tenant_trace_rates)


class Incoming(TraceContextTextMapPropagator):
    """What is read from a call that comes in: its trace, or its name, and whose it is, as the edge says; no baggage."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Reads both into a context."""
        from meshwright.core.sampling import TENANT
        from meshwright.core.trace_ids import TRACE_KEY, name_trace

        name_trace("".join(getter.get(carrier, TRACE_KEY) or ()))
        found = super().extract(carrier, context, getter)
        tenant = getter.get(carrier, TENANT_KEY)
        return contexts.set_value(TENANT, unquote(tenant[0]), found) if tenant else found


def has_gen_ai() -> bool:
    """Whether spans follow OpenTelemetry's conventions for generative AI, which may still change."""
    return GEN_AI in conventions


def flush() -> None:
    """Sends what is still buffered."""
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "shutdown"):
        provider.shutdown()


def server_interceptors(settings: Settings) -> "list[grpc.aio.ServerInterceptor]":
    """Returns the stock OpenTelemetry interceptor, or nothing where tracing is off or done by `ServedSpans`."""
    if not settings.tracing or settings.lean_spans:
        return []
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    # A dropped stream's generator is closed in another context, which the instrumentation tells with a stack trace.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    stock: grpc.aio.ServerInterceptor = aio_server_interceptor()  # type: ignore[no-untyped-call]
    return [stock]


def current_trace_id() -> str:
    """Returns the current trace's id in hex; empty outside of a trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def current_ids() -> dict[str, str]:
    """Returns `trace_id` and `span_id` of the current span in hex; nothing outside of a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def traceparent() -> str:
    """Returns the current W3C trace context; empty outside of a trace."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return carrier.get("traceparent", "")


def caller() -> str:
    """Returns the W3C trace context of who called the current call: a span that is not lost with this process.

    Where nobody else has begun the trace, it is the call's own.
    """
    parent: SpanContext | None = getattr(trace.get_current_span(), "parent", None)
    if parent is None or not parent.is_remote:
        return traceparent()
    carrier: dict[str, str] = {}
    W3C.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    return carrier["traceparent"]


def span(
    name: str, parent: str = "", *, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes = None
) -> AbstractContextManager[trace.Span]:
    """Opens a span, under a W3C trace context where one is given (a task carries its own across the queue).

    A failure is named by its class alone: its words may hold content.
    """
    return UNTRACED if tracer is None else opened(tracer, name, parent, kind, attributes)


@contextmanager
def opened(
    tracer: trace.Tracer, name: str, parent: str, kind: SpanKind, attributes: Attributes
) -> Iterator[trace.Span]:
    """Opens a span as `span` does, where spans are made."""
    context = W3C.extract({"traceparent": parent}) if parent else None
    started = tracer.start_as_current_span(
        name, context, kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    )
    with started as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


def store_span(operation: str, function: str = "", commands: int = 1) -> AbstractContextManager[object]:
    """Opens the span of a request to the store, by OpenTelemetry's conventions for databases; no key is in it.

    There is none outside of a span that is kept: what a process does by itself would be a trace for each request.

    Args:
        operation: The command's name.
        function: Which one `FCALL` runs.
        commands: How many go in one round trip.
    """
    if not (has_store_spans and trace.get_current_span().is_recording()):
        return UNTRACED
    found: dict[str, AttributeValue] = {"db.system.name": "redis", "db.operation.name": operation}
    if function:
        found["db.stored_procedure.name"] = function
    if commands > 1:
        found["db.operation.batch.size"] = commands
    return span(f"{operation} {function}".rstrip(), kind=SpanKind.CLIENT, attributes=found)


def span_id_of(current: trace.Span) -> str:
    """Returns a span's id, 16 hex digits; empty: it is not kept."""
    return trace.format_span_id(current.get_span_context().span_id) if current.is_recording() else ""


def link_to_submission(parent: str) -> None:
    """Links the current span to that which put its task into the queue."""
    context = remote(parent)
    if context.is_valid:
        trace.get_current_span().add_link(context, {"meshwright.link": "submitted_by"})


def link_to_attempt(parent: str, attempt: Attempt, word: str) -> None:
    """Links the current span of a task to that of the attempt before.

    Args:
        parent: W3C trace context of the task.
        attempt: The one before.
        word: `resumes` or `takes_over`.
    """
    trace.get_current_span().add_link(beside(remote(parent), attempt.span_id), {"meshwright.link": word})


def send_lost(name: str, parent: str, attempt: Attempt, attributes: Mapping[str, AttributeValue]) -> None:
    """Sends the span of an attempt whose process was lost with it, so that its parts have a parent.

    Args:
        name: Of the span.
        parent: W3C trace context of the task.
        attempt: As the journal tells of it.
        attributes: Of the span.
    """
    above = remote(parent)
    if outlet is None or not above.trace_flags.sampled:
        return
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    lost = ReadableSpan(
        name,
        context=beside(above, attempt.span_id),
        parent=above,
        resource=outlet.resource,
        attributes={**attributes, "meshwright.lost": True},
        kind=SpanKind.CONSUMER,
        instrumentation_scope=InstrumentationScope("meshwright"),
        status=Status(StatusCode.ERROR, "the worker was lost"),
        start_time=attempt.start_ms * NANOS,
        end_time=max(attempt.start_ms, attempt.end_ms) * NANOS,
    )
    outlet.processor.on_end(lost)


def remote(parent: str) -> SpanContext:
    """Reads a W3C trace context; one that is none is not valid."""
    return trace.get_current_span(W3C.extract({"traceparent": parent})).get_span_context()


def beside(context: SpanContext, span_id: str) -> SpanContext:
    """Returns the context of another span of the same trace."""
    return SpanContext(context.trace_id, int(span_id, 16), is_remote=True, trace_flags=context.trace_flags)
