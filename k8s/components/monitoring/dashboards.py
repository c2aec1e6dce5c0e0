"""The dashboards: which questions a panel answers, and by which PromQL. Pure."""

from dataclasses import dataclass
from typing import Any, Literal

from k8s.components.monitoring.alerts import EDGE, OF_MESH, OURS, PROMPT, WORK, failing

WIDTH, HEIGHT, COLUMNS = 8, 8, 3
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "$__rate_interval"
OF_AGENT = 'agent=~"$agent"'
OF_JOB = 'job=~"$agent"'
"""The agent's own processes: what models do is counted without its name."""
Unit = Literal["short", "s", "reqps", "percentunit", "currencyUSD", "cps"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: What it answers.
        queries: PromQL, and what a line is called.
        unit: Of the values, as Grafana calls it.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: Unit = "short"

    def drawn(self, number: int) -> dict[str, Any]:
        """Returns it as Grafana reads it, at its place in the grid."""
        row, column = divmod(number, COLUMNS)
        return {
            "id": number + 1,
            "type": "timeseries",
            "title": self.title,
            "datasource": SOURCE,
            "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                for index, (expression, legend) in enumerate(self.queries)
            ],
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page of panels.

    Attributes:
        name: Of its file and its address.
        title: What Grafana lists.
        panels: In reading order.
        has_agent: Whether one chooses agents at the top.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    has_agent: bool = False

    def drawn(self) -> dict[str, Any]:
        """Returns it as Grafana reads it."""
        choices: list[dict[str, Any]] = [
            {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}
        ]
        if self.has_agent:
            choices.append(
                {
                    "name": "agent",
                    "label": "Agent",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(meshwright_tasks_ready, agent)",
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                }
            )
        return {
            "uid": f"meshwright-{self.name}",
            "title": f"Meshwright / {self.title}",
            "tags": ["meshwright"],
            "schemaVersion": 39,
            "editable": False,
            "time": {"from": "now-6h", "to": "now"},
            "refresh": "30s",
            "templating": {"list": choices},
            "panels": [panel.drawn(number) for number, panel in enumerate(self.panels)],
        }


def rate(metric: str, by: str, labels: str = "") -> str:
    """Returns a counter's rate."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))"


def quantile(share: float, metric: str, by: str, labels: str = "") -> str:
    """Returns a quantile of a histogram."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{labels}}}[{RATE}])))"


def spread(metric: str, by: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    """Returns the queries of a panel of times: the middle one, and one in twenty."""
    return tuple((quantile(share, metric, by, labels), f"{share:.0%} {{{{{by}}}}}") for share in (0.5, 0.95))


def line(expression: str, legend: str = "") -> tuple[tuple[str, str], ...]:
    """Returns the queries of a panel of one."""
    return ((expression, legend),)


DASHBOARDS = (
    Dashboard(
        "overview",
        "Mesh",
        (
            Panel("Calls", line(rate("meshwright_calls_total", "method"), "{{method}}"), "reqps"),
            Panel(
                "Calls that fail by our doing",
                line(
                    rate("meshwright_calls_total", "job, method, code", f"{OURS}, {WORK}"),
                    "{{job}} {{method}} {{code}}",
                ),
                "reqps",
            ),
            Panel("Share of calls that fail", line(failing("1h"), "1 h") + line(failing("6h"), "6 h"), "percentunit"),
            Panel(
                "Time of calls (95 %)",
                line(quantile(0.95, "meshwright_call_seconds", "job, method", PROMPT), "{{job}} {{method}}"),
                "s",
            ),
            Panel("Tasks accepted", line(rate("meshwright_tasks_accepted_total", "agent"), "{{agent}}"), "cps"),
            Panel(
                "Tasks ended",
                line(rate("meshwright_tasks_ended_total", "status, finish_reason"), "{{status}} {{finish_reason}}"),
                "cps",
            ),
            Panel("Tasks at work", line("sum by (agent) (meshwright_tasks_running)", "{{agent}}")),
            Panel("Tasks that wait", line("max by (agent, version) (meshwright_tasks_ready)", "{{agent}} {{version}}")),
            Panel("Open tasks", line("max by (state) (meshwright_tasks_open)", "{{state}}")),
            Panel("Questions to people", line("max(meshwright_questions_open)", "open")),
            Panel(
                "Age of the first in line",
                line("max by (agent, version) (meshwright_ready_age_seconds)", "{{agent}} {{version}}"),
                "s",
            ),
            Panel("Streams open", line("sum by (method) (meshwright_streams_open)", "{{method}}")),
            Panel(
                "Lag of event loops (90 %)",
                line(quantile(0.9, "meshwright_event_loop_lag_seconds", "job, instance"), "{{job}} {{instance}}"),
                "s",
            ),
            Panel(
                "Requests that the store did not serve",
                line(rate("meshwright_store_failures_total", "reason"), "{{reason}}"),
                "cps",
            ),
        ),
    ),
    Dashboard(
        "agent",
        "Agent",
        (
            Panel(
                "Tasks by end",
                line(rate("meshwright_tasks_ended_total", "agent, status", OF_AGENT), "{{agent}} {{status}}"),
                "cps",
            ),
            Panel("Time of tasks", spread("meshwright_task_seconds", "agent", OF_AGENT), "s"),
            Panel(
                "Tasks that wait",
                line(f"max by (agent, version) (meshwright_tasks_ready{{{OF_AGENT}}})", "{{agent}} {{version}}"),
            ),
            Panel("Steps", line(rate("meshwright_steps_total", "agent", OF_AGENT), "{{agent}}"), "cps"),
            Panel(
                "Tokens", line(rate("meshwright_tokens_total", "model, kind", OF_AGENT), "{{model}} {{kind}}"), "cps"
            ),
            Panel("Time of models", spread("meshwright_model_seconds", "model", OF_JOB), "s"),
            Panel(
                "Tries of models",
                line(rate("meshwright_model_tries_total", "model, outcome", OF_JOB), "{{model}} {{outcome}}"),
                "cps",
            ),
            Panel(
                "Models that another one answered for",
                line(rate("meshwright_model_fallbacks_total", "model", OF_JOB), "{{model}}"),
                "cps",
            ),
            Panel(
                "Circuits of models (2: open)",
                line(f"max by (model) (meshwright_model_circuit{{{OF_JOB}}})", "{{model}}"),
            ),
            Panel(
                "Verdicts of guardrails",
                line(
                    rate("meshwright_guardrail_verdicts_total", "rule, point, action", OF_AGENT),
                    "{{rule}} {{point}} {{action}}",
                ),
                "cps",
            ),
            Panel(
                "Answers from before",
                line(rate("meshwright_responses_total", "agent, found", OF_AGENT), "{{agent}} {{found}}"),
                "cps",
            ),
            Panel(
                "Tasks that went on with less",
                line(rate("meshwright_degraded_total", "agent, level", OF_AGENT), "{{agent}} {{level}}"),
                "cps",
            ),
            Panel("Tasks taken over", line(rate("meshwright_takeovers_total", "agent", OF_AGENT), "{{agent}}"), "cps"),
            Panel(
                "Tasks given up",
                line(f"sum by (agent) (increase(meshwright_dead_letters_total{{{OF_AGENT}}}[1h]))", "{{agent}}"),
            ),
        ),
        has_agent=True,
    ),
    Dashboard(
        "tools",
        "Tools and registry",
        (
            Panel(
                "Tool calls", line(rate("meshwright_tool_calls_total", "tool, outcome"), "{{tool}} {{outcome}}"), "cps"
            ),
            Panel("Time of tools", spread("meshwright_tool_seconds", "tool"), "s"),
            Panel("Circuits of tools (2: open)", line("max by (tool) (meshwright_tool_circuit)", "{{tool}}")),
            Panel(
                "Calls of the registry",
                line(rate("meshwright_calls_total", "method, code", 'method=~"/registry.*"'), "{{method}} {{code}}"),
                "reqps",
            ),
            Panel(
                "Time of the registry (95 %)",
                line(
                    quantile(0.95, "meshwright_call_seconds", "method", f'method=~"/registry.*", {PROMPT}'),
                    "{{method}}",
                ),
                "s",
            ),
            Panel(
                "Who watches the registry",
                line('sum by (method) (meshwright_streams_open{method=~"/registry.*"})', "{{method}}"),
            ),
            Panel(
                "Webhooks",
                line(rate("meshwright_webhooks_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}"),
                "cps",
            ),
            Panel(
                "Events that are still to be delivered",
                line("max by (endpoint) (meshwright_webhook_queue)", "{{endpoint}}"),
            ),
            Panel(
                "Days until certificates expire",
                line(
                    "(min by (job, instance) (meshwright_certificate_expires_seconds > 0) - time()) / 86400",
                    "{{job}} {{instance}}",
                )
                + line("min by (job, instance) (envoy_server_days_until_first_cert_expiring)", "Envoy {{instance}}"),
            ),
        ),
    ),
    Dashboard(
        "money",
        "Money",
        (
            Panel(
                "Spent within an hour",
                line("sum(increase(meshwright_cost_micros_total[1h])) / 1e6", "all"),
                "currencyUSD",
            ),
            Panel(
                "By agent, within an hour",
                line("sum by (agent) (increase(meshwright_cost_micros_total[1h])) / 1e6", "{{agent}}"),
                "currencyUSD",
            ),
            Panel(
                "By tenant, within an hour",
                line("sum by (tenant) (increase(meshwright_cost_micros_total[1h])) / 1e6", "{{tenant}}"),
                "currencyUSD",
            ),
            Panel(
                "By model and tool, within an hour",
                line("sum by (kind, name) (increase(meshwright_cost_micros_total[1h])) / 1e6", "{{kind}} {{name}}"),
                "currencyUSD",
            ),
            Panel(
                "Tokens by tenant", line(rate("meshwright_tokens_total", "tenant, kind"), "{{tenant}} {{kind}}"), "cps"
            ),
            Panel(
                "Saved by answers from before, within an hour",
                line("sum by (agent) (increase(meshwright_saved_micros_total[1h])) / 1e6", "{{agent}}"),
                "currencyUSD",
            ),
            Panel(
                "What budgets did not allow",
                line(rate("meshwright_budget_refusals_total", "tenant, what"), "{{tenant}} {{what}}"),
                "cps",
            ),
        ),
    ),
    Dashboard(
        "edge",
        "Edge",
        (
            Panel(
                "Requests by status",
                line(
                    rate(
                        "envoy_http_downstream_rq_xx",
                        "envoy_response_code_class",
                        EDGE,
                    ),
                    "{{envoy_response_code_class}}xx",
                ),
                "reqps",
            ),
            Panel(
                "Time of requests (95 %)",
                line(f"{quantile(0.95, 'envoy_http_downstream_rq_time', 'instance', EDGE)} / 1000", "{{instance}}"),
                "s",
            ),
            Panel(
                "Connections",
                line(f"sum(envoy_http_downstream_cx_active{{{EDGE}}})", "all"),
            ),
            Panel(
                "Requests under way",
                line(f"sum(envoy_http_downstream_rq_active{{{EDGE}}})", "all"),
            ),
            Panel(
                "Share of 5xx",
                line(
                    f'sum(rate(envoy_http_downstream_rq_xx{{{EDGE}, envoy_response_code_class="5"}}[{RATE}])) '
                    f"/ sum(rate(envoy_http_downstream_rq_xx{{{EDGE}}}[{RATE}]))",
                    "all",
                ),
                "percentunit",
            ),
            Panel(
                "Refused by rate limits",
                line(
                    rate("envoy_http_local_rate_limit_rate_limited", "envoy_local_http_ratelimit_prefix"),
                    "{{envoy_local_http_ratelimit_prefix}}",
                ),
                "reqps",
            ),
            Panel(
                "Connections refused",
                line(rate("envoy_listener_downstream_global_cx_overflow", "instance"), "{{instance}}"),
                "cps",
            ),
            Panel(
                "Heap in use (85: sheds load)",
                line(
                    "max by (instance) (envoy_overload_envoy_resource_monitors_fixed_heap_pressure) / 100",
                    "{{instance}}",
                ),
                "percentunit",
            ),
            Panel(
                "Instances that take calls, as the edge that sees fewest",
                line("min by (envoy_cluster_name) (envoy_cluster_membership_healthy)", "{{envoy_cluster_name}}"),
            ),
            Panel(
                "Instances that are left out",
                line(
                    f"max by (envoy_cluster_name) (envoy_cluster_membership_total{{{OF_MESH}}} "
                    f"- envoy_cluster_membership_healthy{{{OF_MESH}}})",
                    "{{envoy_cluster_name}}",
                ),
            ),
            Panel(
                "Answers of services",
                line(
                    rate("envoy_cluster_upstream_rq_xx", "envoy_cluster_name, envoy_response_code_class"),
                    "{{envoy_cluster_name}} {{envoy_response_code_class}}xx",
                ),
                "reqps",
            ),
        ),
    ),
)
