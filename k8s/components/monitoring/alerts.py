"""The alerts: what is looked at, from when on somebody is told, and in which words. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

from meshwright.gateway.limits import CLEARED_AT

RUNBOOKS = "docs/runbooks"
"""Where runbooks are; who serves them elsewhere puts that in front."""
OURS = 'code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"'
"""Statuses that are not the caller's doing."""
PROBES = "/grpc.health.v1.Health/.*|.*/GetReady"
"""How a process is, or the mesh: asked each second, and `not ready` is an answer."""
WORK = f'method!~"{PROBES}"'
"""Calls that somebody wants something of; probes beside them would hide those that fail, or fail in their place."""
PROMPT = f'method!~"{PROBES}|.*/(Watch|Stream|RunTask|Invoke|Export).*"'
"""Calls that answer at once: no probes, no streams, and none that lasts as long as a task or a tool."""
ERROR_BUDGET = 0.001
"""The objective is that 99.9 % of calls within 30 days do not fail by our doing."""
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
DOLLARS_AN_HOUR = 50
ROLES = ("registry", "gateway", "edge", "agent")
"""What has to be there, by the label `mesh_role` that whoever scrapes gives to its targets; `edge` is Envoy."""
EDGE = 'envoy_http_conn_manager_prefix="edge"'
OF_MESH = 'envoy_cluster_name=~"registry|gateway|agents|agent-.*"'
"""Clusters without which calls fail."""
MEMORY_AT = round(100 * CLEARED_AT)
"""Percent of its heap from which on Envoy sheds load."""
COUNTED = "sum by (instance) (rate(envoy_cluster_ratelimit_ok[5m]))"
UNCOUNTED = "sum by (instance) (rate(envoy_cluster_ratelimit_error[5m]))"
"""Calls that the shared rate limits let pass, and those that passed since they did not answer; Envoy makes each counter
when it first counts."""
WHO = "{{ $labels.job }} at {{ $labels.instance }}"
"""A process: an address alone tells nobody which."""
LEFT_ALONE = "has failed so often that it is left alone (circuit {{ $value }}; 2: open, 1: on trial)"
COUNT = '{{ $value | printf "%.0f" }}'
"""The value of what is counted: Prometheus extrapolates growth to parts of one."""
Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: As Alertmanager knows it.
        runbook: File of its runbook, without `.md`.
        expression: PromQL; what it returns fires.
        summary: Plain words, with the labels and the value.
        severity: `critical` wakes somebody, `warning` waits for the morning.
        lasts: How long it has to be so first.
    """

    name: str
    runbook: str
    expression: str
    summary: str
    severity: Severity = "warning"
    lasts: str = "0m"

    def rule(self) -> dict[str, Any]:
        """Returns it as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook_url": f"{RUNBOOKS}/{self.runbook}.md"},
        }


def failing(window: str) -> str:
    """Names the recorded share of calls that fail within a window."""
    return f"meshwright:call_errors:ratio_rate{window}"


def recorded() -> list[dict[str, str]]:
    """Returns the rules by which shares of failing calls are recorded."""
    return [
        {
            "record": failing(window),
            "expr": f"(sum(rate(meshwright_calls_total{{{OURS}, {WORK}}}[{window}])) or vector(0)) "
            f"/ sum(rate(meshwright_calls_total{{{WORK}}}[{window}]))",
        }
        for window in WINDOWS
    ]


def burning(name: str, factor: float, windows: tuple[str, str], severity: Severity, lasts: str) -> Alert:
    """Builds the alert for an error budget that is spent too fast: by a long window, and still by a short one."""
    long, short = windows
    limit = f"{factor * ERROR_BUDGET:g}"
    return Alert(
        name,
        "slo-burn-rate",
        f"{failing(long)} > {limit} and {failing(short)} > {limit}",
        f"{{{{ $value | humanizePercentage }}}} of calls failed within {long}: at {factor:g} times the rate that the "
        "objective of 99.9 % allows",
        severity,
        lasts,
    )


def grown(metric: str, window: str, by: str) -> str:
    """Returns what a counter has grown by within a window, also one whose first value is not zero."""
    before = f"{metric} unless {metric} offset {window}"
    return f"sum by ({by}) (increase({metric}[{window}])) > 0 or sum by ({by}) ({before}) > 0"


ALERTS: dict[str, tuple[Alert, ...]] = {
    "calls": (
        Alert(
            "MeshwrightErrorRate",
            "error-rate",
            f"sum by (job, method) (rate(meshwright_calls_total{{{OURS}, {WORK}}}[5m])) "
            f"/ sum by (job, method) (rate(meshwright_calls_total{{{WORK}}}[5m])) > 0.05",
            "{{ $value | humanizePercentage }} of calls of {{ $labels.method }} at {{ $labels.job }} fail by our doing",
            "critical",
            "5m",
        ),
        Alert(
            "MeshwrightSlowCalls",
            "slow-calls",
            "histogram_quantile(0.95, sum by (job, method, le) (rate(meshwright_call_seconds_bucket"
            f"{{{PROMPT}}}[10m]))) > 1",
            "One in twenty calls of {{ $labels.method }} at {{ $labels.job }} takes longer than "
            "{{ $value | humanizeDuration }}",
            lasts="10m",
        ),
        burning("MeshwrightErrorBudgetBurnsFast", 14.4, ("1h", "5m"), "critical", "2m"),
        burning("MeshwrightErrorBudgetBurns", 6, ("6h", "30m"), "critical", "15m"),
        burning("MeshwrightErrorBudgetBurnsSlowly", 3, ("1d", "2h"), "warning", "1h"),
        burning("MeshwrightErrorBudgetShrinks", 1, ("3d", "6h"), "warning", "3h"),
    ),
    "tasks": (
        Alert(
            "MeshwrightTasksFail",
            "tasks-fail",
            'sum by (agent) (rate(meshwright_tasks_ended_total{finish_reason="FINISH_REASON_ERROR"}[10m])) '
            "/ sum by (agent) (rate(meshwright_tasks_ended_total[10m])) > 0.2",
            "{{ $value | humanizePercentage }} of the tasks of {{ $labels.agent }} end with an error",
            lasts="10m",
        ),
        Alert(
            "MeshwrightQueueAge",
            "queue-age",
            "max by (agent, version) (meshwright_ready_age_seconds) > 300",
            "The first task in line for {{ $labels.agent }} has waited for {{ $value | humanizeDuration }}",
            "critical",
            "5m",
        ),
        Alert(
            "MeshwrightDeadLetters",
            "dead-letters",
            grown("meshwright_dead_letters_total", "15m", "agent"),
            f"{{{{ $labels.agent }}}} gave up {COUNT} tasks that took worker after worker down",
        ),
        Alert(
            "MeshwrightTakeoverStorm",
            "takeovers",
            "sum by (agent) (increase(meshwright_takeovers_total[10m])) > 10",
            f"{COUNT} tasks of {{{{ $labels.agent }}}} were taken over from lost workers within 10 minutes",
            "critical",
        ),
        Alert(
            "MeshwrightGuardrailViolations",
            "guardrail-violations",
            'sum by (agent, rule) (increase(meshwright_guardrail_verdicts_total{action=~"block|ask"}[15m])) > 10',
            f"The guardrail {{{{ $labels.rule }}}} of {{{{ $labels.agent }}}} held {COUNT} things within 15 minutes",
        ),
    ),
    "money": (
        Alert(
            "MeshwrightCostPerHour",
            "cost-per-hour",
            f"sum(increase(meshwright_cost_micros_total[1h])) / 1e6 > {DOLLARS_AN_HOUR}",
            "The mesh spent {{ $value | humanize }} US dollars within an hour",
        ),
        Alert(
            "MeshwrightBudgetExhausted",
            "budget-exhausted",
            grown('meshwright_budget_refusals_total{what=~"task|shared_step"}', "15m", "agent, tenant"),
            f"{COUNT} tasks of {{{{ $labels.tenant }}}} for {{{{ $labels.agent }}}} were refused or cut short: "
            "a shared budget is used up",
        ),
    ),
    "dependencies": (
        Alert(
            "MeshwrightToolCircuitOpen",
            "circuit-open",
            "max by (tool) (meshwright_tool_circuit) > 0",  # a trial that fails slowly is no recovery
            f"The tool {{{{ $labels.tool }}}} {LEFT_ALONE}",
            lasts="2m",
        ),
        Alert(
            "MeshwrightModelCircuitOpen",
            "circuit-open",
            "max by (model) (meshwright_model_circuit) > 0",
            f"The model {{{{ $labels.model }}}} {LEFT_ALONE}",
            "critical",
            "2m",
        ),
        Alert(
            "MeshwrightStoreAway",
            "store-away",
            'sum by (job, instance) (increase(meshwright_store_failures_total{reason="STORE_UNAVAILABLE"}[2m])) > 5',
            f"The store did not serve {COUNT} requests of {WHO} within 2 minutes",
            "critical",
            "1m",
        ),
        Alert(
            "MeshwrightWebhookGivenUp",
            "webhook-given-up",
            grown('meshwright_webhooks_total{outcome=~"given_up|dropped|gone"}', "1h", "endpoint, outcome"),
            f"{COUNT} events for the webhook {{{{ $labels.endpoint }}}} were never delivered "
            "({{ $labels.outcome }})",
        ),
    ),
    "edge": (
        Alert(
            "MeshwrightEdgeErrors",
            "edge-errors",
            f'sum(rate(envoy_http_downstream_rq_xx{{{EDGE}, envoy_response_code_class="5"}}[5m])) '
            f"/ sum(rate(envoy_http_downstream_rq_xx{{{EDGE}}}[5m])) > 0.05",
            "The edge answers {{ $value | humanizePercentage }} of its requests with 5xx",
            "critical",
            "5m",
        ),
        Alert(
            "MeshwrightEdgeNobodyServes",
            "edge-instances",
            f"min by (envoy_cluster_name) (envoy_cluster_membership_healthy{{{OF_MESH}}}) == 0",
            "An edge knows {{ $value }} instances of {{ $labels.envoy_cluster_name }} that take calls",
            "critical",
            "2m",
        ),
        Alert(
            "MeshwrightEdgeInstancesOut",
            "edge-instances",
            f"max by (envoy_cluster_name) (max_over_time((envoy_cluster_membership_total{{{OF_MESH}}} "
            f"- envoy_cluster_membership_healthy{{{OF_MESH}}})[5m:30s])) > 0",
            "An edge leaves {{ $value }} instances of {{ $labels.envoy_cluster_name }} out again and again",
            lasts="10m",
        ),
        Alert(
            "MeshwrightRateLimits",
            "rate-limits",
            "sum by (envoy_local_http_ratelimit_prefix) (rate(envoy_http_local_rate_limit_rate_limited[10m])) "
            "/ sum by (envoy_local_http_ratelimit_prefix) (rate(envoy_http_local_rate_limit_enabled[10m])) > 0.1",
            "{{ $labels.envoy_local_http_ratelimit_prefix }} refuses {{ $value | humanizePercentage }} of the requests "
            "at the edge",
            lasts="10m",
        ),
        Alert(
            "MeshwrightSharedLimitsAway",
            "shared-limits",
            f"{UNCOUNTED} / ({COUNTED} + {UNCOUNTED} or {UNCOUNTED}) > 0.01",
            "{{ $labels.instance }} gets no answer from the shared rate limits for {{ $value | humanizePercentage }} "
            "of its calls",
            lasts="5m",
        ),
        Alert(
            "MeshwrightEdgeMemory",
            "edge-overload",
            f"max by (instance) (envoy_overload_envoy_resource_monitors_fixed_heap_pressure) >= {MEMORY_AT}",
            "Envoy at {{ $labels.instance }} uses {{ $value }} % of its heap, and sheds load",
            "critical",
            "2m",
        ),
        Alert(
            "MeshwrightEdgeConnections",
            "edge-overload",
            grown("envoy_listener_downstream_global_cx_overflow", "10m", "instance"),
            f"Envoy at {{{{ $labels.instance }}}} refused {COUNT} connections: it has as many as it takes",
            "critical",
        ),
    ),
    "processes": (
        Alert(
            "MeshwrightTargetDown",
            "target-down",
            'min by (mesh_role, job, instance) (up{mesh_role!=""}) == 0',
            f"{WHO} ({{{{ $labels.mesh_role }}}}) tells no metrics (up is {{{{ $value }}}})",
            lasts="5m",
        ),
        Alert(
            "MeshwrightRoleAbsent",
            "target-down",
            " or ".join(
                (
                    'sum by (mesh_role, job) (up{mesh_role!=""}) == 0',
                    *(f'0 * absent(up{{mesh_role="{role}"}})' for role in ROLES),
                )
            ),
            "{{ $value }} instances of {{ $labels.mesh_role }}{{ with $labels.job }} {{ . }}{{ end }} tell metrics",
            "critical",
            "5m",
        ),
        Alert(
            "MeshwrightRestarts",
            "restarts",
            'max by (mesh_role, job, instance) (changes(process_start_time_seconds{mesh_role!=""}[30m])) > 2 '
            "or max by (mesh_role, job, instance) (resets(envoy_server_uptime[30m])) > 2",
            f"{WHO} ({{{{ $labels.mesh_role }}}}) has started anew {{{{ $value }}}} times within 30 minutes",
        ),
        Alert(
            "MeshwrightLoopLag",
            "loop-lag",
            "histogram_quantile(0.9, sum by (job, instance, le) "
            "(rate(meshwright_event_loop_lag_seconds_bucket[5m]))) > 0.25",
            f"The event loop of {WHO} runs {{{{ $value | humanizeDuration }}}} late",
            lasts="5m",
        ),
        Alert(
            "MeshwrightCertificateExpires",
            "certificate-expires",
            "min by (job, instance) (meshwright_certificate_expires_seconds > 0) - time() < 7 * 86400 "
            "or min by (job, instance) (envoy_server_days_until_first_cert_expiring) * 86400 < 7 * 86400",
            f"The certificate of {WHO} expires in {{{{ $value | humanizeDuration }}}}",
            "critical",
        ),
    ),
}


def groups() -> list[dict[str, Any]]:
    """Returns the groups of rules, as Prometheus and its operator both have them."""
    alerts = [
        {"name": f"meshwright-{name}", "rules": [alert.rule() for alert in members]} for name, members in ALERTS.items()
    ]
    return [{"name": "meshwright-objectives", "interval": "30s", "rules": recorded()}, *alerts]
