"""Logs, traces and metrics: one line of JSON an event, one trace across all hops, one Prometheus listener."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from meshwright.core.errors import SetupError
from meshwright.core.settings import Settings

if TYPE_CHECKING:
    import grpc


class Labelled:
    """A metric whose children are looked up once: `labels` alone costs more than counting."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def labels(self, *values: str) -> Any:
        """Returns the child of some label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


CALLS = Labelled(Counter("meshwright_calls", "Finished calls", ["method", "code"]))
CALL_SECONDS = Labelled(Histogram("meshwright_call_seconds", "Time from first byte to last", ["method"]))
TASKS_ENDED = Labelled(
    Counter("meshwright_tasks_ended", "Tasks that this process ended", ["agent", "status", "finish_reason"])
)
TASKS_RUNNING = Labelled(Gauge("meshwright_tasks_running", "Tasks that this process works on", ["agent"]))
TAKEOVERS = Labelled(Counter("meshwright_takeovers", "Tasks claimed after their worker was lost", ["agent"]))
STEPS = Labelled(Counter("meshwright_steps", "Plan-act-observe rounds", ["agent"]))
TOKENS = Labelled(Counter("meshwright_tokens", "Model tokens", ["agent", "model", "kind"]))
COST = Labelled(Counter("meshwright_cost_micros", "Cost in millionths of a US dollar", ["agent", "kind", "name"]))
TOOL_CALLS = Labelled(Counter("meshwright_tool_calls", "Tool calls", ["tool", "outcome"]))
MODEL_TRIES = Labelled(Counter("meshwright_model_tries", "Tries of model calls", ["model", "outcome"]))
MODEL_FALLBACKS = Labelled(Counter("meshwright_model_fallbacks", "Models that another one answered for", ["model"]))
MODEL_CIRCUIT = Labelled(Gauge("meshwright_model_circuit", "Circuit: 0 closed, 1 on trial, 2 open", ["model"]))
DEGRADED = Labelled(Counter("meshwright_degraded", "Tasks that went on with less", ["agent", "level"]))
RESPONSES = Labelled(
    Counter(
        "meshwright_responses", "Looks for an answer from before: hit, alike, stale, miss, failed", ["agent", "found"]
    )
)
SAVED = Labelled(Counter("meshwright_saved_micros", "What answers from before saved, in US$ / 1000000", ["agent"]))
GUARDRAIL_VERDICTS = Labelled(
    Counter("meshwright_guardrail_verdicts", "What guardrails said beyond allow", ["agent", "rule", "point", "action"])
)
TOOL_CIRCUIT = Labelled(Gauge("meshwright_tool_circuit", "Circuit: 0 closed, 1 on trial, 2 open", ["tool"]))
WEBHOOKS = Labelled(
    Counter(
        "meshwright_webhooks",
        "Events by what became of them: delivered, failed, given_up, dropped, gone",
        ["endpoint", "outcome"],
    )
)
WEBHOOK_QUEUE = Labelled(Gauge("meshwright_webhook_queue", "Events that are still to be delivered", ["endpoint"]))
CERTIFICATE_EXPIRES = Gauge(
    "meshwright_certificate_expires_seconds", "When the certificate that this process shows expires, in Unix time"
)

W3C = TraceContextTextMapPropagator()
tracer: trace.Tracer | None = None
"""Makes this process's spans, where it makes any."""


def configure(settings: Settings, service: str, instance: str) -> None:
    """Sets up logs, traces and the metrics listener of this process.

    Raises:
        SetupError: The metrics port is taken, or the log level is unknown.
    """
    configure_logs(settings.log_level, service, instance)
    if settings.tracing:
        configure_traces(settings.otlp_endpoint, service, instance)
    if settings.metrics_port >= 0:
        try:
            server, _ = start_http_server(settings.metrics_port, addr=settings.host)
        except OSError as error:
            raise SetupError(f"metrics port {settings.metrics_port} cannot be used: {error.strerror}") from None
        structlog.get_logger("metrics").info("metrics_served", port=server.server_port)


def configure_logs(level: str, service: str, instance: str) -> None:
    """Writes one JSON object a line to stderr, libraries' warnings too.

    Every line names service, instance and the current trace. A traceback in it is text: the variables of its frames
    are nobody's business.

    Raises:
        SetupError: There is no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise SetupError(f"MESHWRIGHT_LOG_LEVEL={level!r}: use debug, info, warning or error")

    def add_origin(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.update(service=service, instance=instance)
        if trace_id := current_trace_id():
            event["trace_id"] = trace_id
        return event

    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_origin,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*steps, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *steps],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[libraries])


def configure_traces(otlp_endpoint: str, service: str, instance: str) -> None:
    """Makes trace ids; spans leave the process only towards an OTLP endpoint."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource({"service.name": f"meshwright-{service}", "service.instance.id": instance})
    provider = TracerProvider(resource=resource)
    if otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=otlp_endpoint.startswith("http://"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    global tracer  # noqa: PLW0603 - one a process, as the provider itself
    tracer = trace.get_tracer("meshwright")


def flush() -> None:
    """Sends what is still buffered."""
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "shutdown"):
        provider.shutdown()


def server_interceptors(settings: Settings) -> "list[grpc.aio.ServerInterceptor]":
    """Returns the stock OpenTelemetry interceptor, or nothing where tracing is off."""
    if not settings.tracing:
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


def traceparent() -> str:
    """Returns the current W3C trace context; empty outside of a trace."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def span(name: str, parent: str = "", **attributes: str | int) -> Iterator[trace.Span]:
    """Opens a span, under a W3C trace context where one is given (a task carries its own across the queue)."""
    if tracer is None:
        yield trace.INVALID_SPAN
        return
    context = W3C.extract({"traceparent": parent}) if parent else None
    with tracer.start_as_current_span(name, context, attributes=attributes) as current:
        yield current
