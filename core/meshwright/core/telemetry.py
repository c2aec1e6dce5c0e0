"""Metrics, on one Prometheus listener; logs are in `logs`, traces in `tracing`."""

import asyncio
import time
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from meshwright.core import logs, tracing
from meshwright.core.errors import SetupError
from meshwright.core.metrics_listener import MetricsListener
from meshwright.core.settings import Settings

OTHER = "other"
TASK_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600)
MODEL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LAG_EVERY_S = 1.0
SLOW_S = 1.0
EXEMPLAR_EVERY_S = 1.0
disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which nothing here asks for


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


class Bounded:
    """Values that a label takes from outside: the first so many by name, the rest together as `other`.

    Attributes:
        most: How many are named; each is a series of every metric with that label.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        """Returns what a value is counted as."""
        if name in self._names:
            return name
        if len(self._names) >= self.most:
            return OTHER
        self._names.add(name)
        return name


TENANTS = Bounded(20)
NAMES = Bounded(200)
"""Models as their providers call them, and tools."""
CALLS = Labelled(Counter("meshwright_calls", "Finished calls", ["method", "code"]))
CALL_SECONDS = Labelled(Histogram("meshwright_call_seconds", "Time from first byte to last", ["method"]))
STREAMS_OPEN = Labelled(
    Gauge("meshwright_streams_open", "Streams that are served now: watchers, most of them", ["method"])
)
TASKS_ACCEPTED = Labelled(Counter("meshwright_tasks_accepted", "Tasks that were accepted", ["agent", "tenant"]))
TASKS_READY = Labelled(
    Gauge(
        "meshwright_tasks_ready",
        "Tasks that wait for a worker; by version where they stay with one",
        ["agent", "version"],
    )
)
READY_SECONDS = Labelled(
    Gauge("meshwright_ready_age_seconds", "How long the task that is first in line has waited", ["agent", "version"])
)
TASKS_OPEN = Labelled(
    Gauge("meshwright_tasks_open", "Accepted tasks of all agents that have not ended: running or waiting", ["state"])
)
QUESTIONS_OPEN = Gauge("meshwright_questions_open", "What tasks of all agents wait for a person to decide")
TASKS_ENDED = Labelled(
    Counter("meshwright_tasks_ended", "Tasks that this process ended", ["agent", "status", "finish_reason"])
)
TASKS_RUNNING = Labelled(Gauge("meshwright_tasks_running", "Tasks that this process works on", ["agent"]))
TASK_SECONDS = Labelled(
    Histogram("meshwright_task_seconds", "Time from acceptance to end of a task", ["agent"], buckets=TASK_BUCKETS)
)
DEAD_LETTERS = Labelled(
    Counter("meshwright_dead_letters", "Tasks that were given up after worker after worker was lost", ["agent"])
)
TAKEOVERS = Labelled(Counter("meshwright_takeovers", "Tasks claimed after their worker was lost", ["agent"]))
STEPS = Labelled(Counter("meshwright_steps", "Plan-act-observe rounds", ["agent"]))
TOKENS = Labelled(Counter("meshwright_tokens", "Model tokens", ["agent", "tenant", "model", "kind"]))
COST = Labelled(
    Counter("meshwright_cost_micros", "Cost in millionths of a US dollar", ["agent", "tenant", "kind", "name"])
)
BUDGET_REFUSALS = Labelled(
    Counter(
        "meshwright_budget_refusals",
        "What a budget did not allow: a task, a step of one (shared_step: tasks share the budget), a tool call",
        ["agent", "tenant", "what"],
    )
)
TOOL_CALLS = Labelled(Counter("meshwright_tool_calls", "Tool calls", ["tool", "outcome"]))
TOOL_SECONDS = Labelled(Histogram("meshwright_tool_seconds", "Time of a tool call, all attempts", ["tool"]))
MODEL_SECONDS = Labelled(
    Histogram("meshwright_model_seconds", "Time of a try that a model answered", ["model"], buckets=MODEL_BUCKETS)
)
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

STORE_FAILURES = Labelled(Counter("meshwright_store_failures", "Requests that the store did not serve", ["reason"]))
STORE_FAILURES.labels("STORE_UNAVAILABLE")  # from zero on, so that the first ones count as growth
LOOP_LAG = Histogram(
    "meshwright_event_loop_lag_seconds",
    "How late the event loop ran what was due, looked at each second",
    buckets=LAG_BUCKETS,
)


def configure(settings: Settings, service: str, instance: str) -> None:
    """Sets up logs, traces and the metrics listener of this process.

    Raises:
        SetupError: The metrics port is taken, or the levels of the log cannot be read.
    """
    logs.configure(settings, service, instance)
    if settings.tracing:
        tracing.configure(settings, service, instance)
    TENANTS.most = settings.metrics_tenants
    if settings.metrics_port >= 0:
        host = settings.metrics_host or settings.host
        try:
            listener = MetricsListener(host, settings.metrics_port)
        except OSError as error:
            raise SetupError(
                f"metrics port {settings.metrics_port} on {host} cannot be used: {error.strerror}"
            ) from None
        listener.start()
        structlog.get_logger("metrics").info("metrics_served", port=listener.server_port)
        watch_loop(asyncio.get_running_loop())


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Measures, as long as a loop runs, how late it runs what is due."""
    due = loop.time() + LAG_EVERY_S

    def look() -> None:
        LOOP_LAG.observe(max(0.0, loop.time() - due))
        watch_loop(loop)

    loop.call_at(due, look)


def count_refusal(agent: str, tenant: str, what: str) -> None:
    """Counts what a budget did not allow: a `task`, a `step` of one (`shared_step`: others share it), a `tool` call."""
    BUDGET_REFUSALS.labels(agent, TENANTS.label(tenant), what).inc()


class Exemplars:
    """Picks the calls whose trace ids stand beside a histogram, in OpenMetrics: slow ones, and one a second.

    An exemplar costs more than the observation itself.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def of(self, seconds: float) -> dict[str, str] | None:
        """Returns the exemplar of a call that took so long; None: it has none."""
        if tracing.tracer is None:
            return None
        now = time.monotonic()
        if seconds < SLOW_S and now < self._next:
            return None
        self._next = now + EXEMPLAR_EVERY_S
        trace_id = tracing.current_trace_id()
        return {"trace_id": trace_id} if trace_id else None


EXEMPLARS = Exemplars()


def count_cost(agent: str, tenant: str, kind: str, name: str, micros: int) -> None:
    """Counts money.

    Args:
        agent: Whose task spent it.
        tenant: Whose task that is.
        kind: `llm`, `embedding`, `tool` or `storage`.
        name: The model or tool; empty: neither.
        micros: Millionths of a US dollar.
    """
    if micros:
        COST.labels(agent, TENANTS.label(tenant), kind, NAMES.label(name)).inc(micros)
