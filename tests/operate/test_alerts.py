"""Alerts: each fires when it should, in the words that it should, and is silent otherwise."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from k8s.components.monitoring import render
from k8s.components.monitoring.alerts import ALERTS, ROLES, WINDOWS
from meshwright.cli.main import app
from tests.operate.promtool import needs_promtool, promtool

REPO = Path(__file__).parents[2]
MONITORING = REPO / "k8s/components/monitoring"
ALL = {alert.name: alert for alerts in ALERTS.values() for alert in alerts}


@dataclass(frozen=True)
class Case:
    """Series, a value each minute, at which an alert fires and at which it does not.

    Attributes:
        fires: Series by name.
        quiet: The same.
        summary: What somebody reads.
        labels: Of the alert, beside its severity.
        at: When it is looked.
    """

    fires: dict[str, str]
    quiet: dict[str, str]
    summary: str
    labels: dict[str, str] = field(default_factory=dict)
    at: str = "20m"


def calls(ok, failed, job="clerk", method="/m"):
    return {
        f'meshwright_calls_total{{job="{job}",method="{method}",code="OK"}}': ok,
        f'meshwright_calls_total{{job="{job}",method="{method}",code="UNAVAILABLE"}}': failed,
    }


def probes(ok):
    """Calls that ask each second how things are: good ones, and as many that say `not ready`."""
    return calls(ok, "0x800", "clerk", "/grpc.health.v1.Health/Check") | calls(
        "0x800", ok, "gateway", "/gateway.v1.EdgeService/GetReady"
    )


def buckets(metric, labels, bounds):
    return {f'{metric}_bucket{{{labels},le="{bound}"}}': f"0+{step}x400" for bound, step in bounds.items()}


def requests(ok, failed, *others):
    """Requests at the edge by their status; others: a prefix, and what is counted as 5xx there."""
    name, edge = "envoy_http_downstream_rq_xx", 'envoy_http_conn_manager_prefix="edge"'
    told = {
        f'{name}{{{edge},envoy_response_code_class="2"}}': ok,
        f'{name}{{{edge},envoy_response_code_class="5"}}': failed,
    }
    return told | ({f'{name}{{{others[0]},envoy_response_code_class="5"}}': others[1]} if others else {})


def members(cluster, total, healthy, instance="a"):
    labels = f'envoy_cluster_name="{cluster}",instance="{instance}"'
    return {
        f"envoy_cluster_membership_total{{{labels}}}": total,
        f"envoy_cluster_membership_healthy{{{labels}}}": healthy,
    }


def limited(prefix, asked, refused):
    name, labels = "envoy_http_local_rate_limit", f'{{envoy_local_http_ratelimit_prefix="{prefix}"}}'
    return {f"{name}_enabled{labels}": asked, f"{name}_rate_limited{labels}": refused}


def shared(ok, error, instance="a"):
    """What an edge counts of the shared limits; None: nothing yet."""
    labels = f'envoy_cluster_name="agent-clerk",instance="{instance}"'
    told = {f"envoy_cluster_ratelimit_{name}{{{labels}}}": values for name, values in (("ok", ok), ("error", error))}
    return {name: values for name, values in told.items() if values}


def target(role, job, number=0):
    return f'mesh_role="{role}",job="{job}",instance="{job}-{number}"'


def up(role, job, values, number=0):
    return {f"up{{{target(role, job, number)}}}": values}


def whole():
    """A mesh of which everything is there."""
    jobs = {"registry": "registry", "gateway": "gateway", "edge": "gateway", "agent": "clerk"}
    return {name: values for role, job in jobs.items() for name, values in up(role, job, "1x40").items()}


OF_REGISTRY, OF_EDGE = target("registry", "registry"), target("edge", "gateway")
BURNT = "of calls failed within {}: at {} times the rate that the objective of 99.9 % allows"
CASES = {
    "MeshwrightErrorRate": Case(
        calls("0+80x400", "0+20x400") | calls("0+9000x400", "0+10x400", "another"),
        calls("0+98x400", "0+2x400")
        | probes("0+60x400")
        | {'meshwright_calls_total{job="clerk",method="/m",code="NOT_FOUND"}': "0+50x400"},
        "20% of calls of /m at clerk fail by our doing",
        {"job": "clerk", "method": "/m"},
    ),
    "MeshwrightSlowCalls": Case(
        buckets("meshwright_call_seconds", 'job="clerk",method="/m"', {"1": 50, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'job="another",method="/m"', {"1": 9000, "2.5": 9000, "+Inf": 9000}),
        buckets("meshwright_call_seconds", 'job="clerk",method="/m"', {"1": 99, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'method="/a/WatchTask"', {"1": 0, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'method="/a/RunTask"', {"1": 0, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'method="/a/GetReady"', {"1": 0, "2.5": 100, "+Inf": 100}),
        "One in twenty calls of /m at clerk takes longer than 2.35s",
        {"job": "clerk", "method": "/m"},
        "30m",
    ),
    "MeshwrightErrorBudgetBurnsFast": Case(
        calls("0+98x400", "0+2x400") | calls("0+9000x400", "0x400", method="/grpc.health.v1.Health/Check"),
        probes("0+60x400") | calls("0+99x60 5940+100x400", "0+2x60 120x400"),  # it was so for an hour, and is over
        "2% " + BURNT.format("1h", "14.4"),
        at="90m",
    ),
    "MeshwrightErrorBudgetBurns": Case(
        calls("0+99x800", "0+1x800"),
        calls("0+998x800", "0+2x800"),
        "1% " + BURNT.format("6h", "6"),
        at="7h",
    ),
    "MeshwrightErrorBudgetBurnsSlowly": Case(
        calls("0+996x800", "0+4x800"),
        calls("0+998x800", "0+2x800"),
        "0.4% " + BURNT.format("1d", "3"),
        at="7h",
    ),
    "MeshwrightErrorBudgetShrinks": Case(
        calls("0+998x800", "0+2x800"),
        calls("0+9995x800", "0+5x800"),
        "0.2% " + BURNT.format("3d", "1"),
        at="7h",
    ),
    "MeshwrightTasksFail": Case(
        {
            'meshwright_tasks_ended_total{agent="clerk",finish_reason="FINISH_REASON_ERROR"}': "0+3x40",
            'meshwright_tasks_ended_total{agent="clerk",finish_reason="FINISH_REASON_STOP"}': "0+7x40",
        },
        {
            'meshwright_tasks_ended_total{agent="clerk",finish_reason="FINISH_REASON_ERROR"}': "0+1x40",
            'meshwright_tasks_ended_total{agent="clerk",finish_reason="FINISH_REASON_CANCELLED"}': "0+9x40",
        },
        "30% of the tasks of clerk end with an error",
        {"agent": "clerk"},
        "30m",
    ),
    "MeshwrightQueueAge": Case(
        {
            'meshwright_ready_age_seconds{agent="clerk",version="",instance="a"}': "0+60x40",
            'meshwright_ready_age_seconds{agent="clerk",version="",instance="b"}': "0+60x40",
        },
        {'meshwright_ready_age_seconds{agent="clerk",version="",instance="a"}': "290x40"},
        "The first task in line for clerk has waited for 20m 0s",
        {"agent": "clerk"},
    ),
    "MeshwrightDeadLetters": Case(
        {'meshwright_dead_letters_total{agent="clerk"}': "_x15 1x10"},
        {'meshwright_dead_letters_total{agent="clerk"}': "3x40"},
        "clerk gave up 1 tasks that took worker after worker down",
        {"agent": "clerk"},
    ),
    "MeshwrightTakeoverStorm": Case(
        {'meshwright_takeovers_total{agent="clerk"}': "0+1.25x40"},
        {'meshwright_takeovers_total{agent="clerk"}': "0x14 1x20"},
        "12 tasks of clerk were taken over from lost workers within 10 minutes",
        {"agent": "clerk"},
    ),
    "MeshwrightGuardrailViolations": Case(
        {'meshwright_guardrail_verdicts_total{agent="clerk",rule="injection",action="block"}': "0+2x40"},
        {
            'meshwright_guardrail_verdicts_total{agent="clerk",rule="injection",action="block"}': "0x10 5x20",
            'meshwright_guardrail_verdicts_total{agent="clerk",rule="pii",action="redact"}': "0+9x40",
        },
        "The guardrail injection of clerk held 30 things within 15 minutes",
        {"agent": "clerk", "rule": "injection"},
    ),
    "MeshwrightCostPerHour": Case(
        {'meshwright_cost_micros_total{agent="clerk",tenant="acme",kind="llm",name="m"}': "0+2000000x200"},
        {'meshwright_cost_micros_total{agent="clerk",tenant="acme",kind="llm",name="m"}': "0+500000x200"},
        "The mesh spent 120 US dollars within an hour",
        at="2h",
    ),
    "MeshwrightBudgetExhausted": Case(
        {
            'meshwright_budget_refusals_total{agent="clerk",tenant="acme",what="task"}': "_x15 1x10",
            'meshwright_budget_refusals_total{agent="clerk",tenant="acme",what="shared_step"}': "_x15 3x10",
        },
        {'meshwright_budget_refusals_total{agent="clerk",tenant="acme",what="step"}': "0+1x40"},
        "4 tasks of acme for clerk were refused or cut short: a shared budget is used up",
        {"agent": "clerk", "tenant": "acme"},
    ),
    "MeshwrightToolCircuitOpen": Case(
        {'meshwright_tool_circuit{tool="tax.add@1.0.0",instance="a"}': "0x10 2x20"},
        {'meshwright_tool_circuit{tool="tax.add@1.0.0",instance="a"}': "0 2 1 0 1 0x20"},
        "The tool tax.add@1.0.0 has failed so often that it is left alone (circuit 2; 2: open, 1: on trial)",
        {"tool": "tax.add@1.0.0"},
    ),
    "MeshwrightModelCircuitOpen": Case(
        {'meshwright_model_circuit{model="openai:m",instance="a"}': "0x10 2 1 1 2 1 1 2 1 1 2 1 1"},  # slow to fail
        {'meshwright_model_circuit{model="openai:m",instance="a"}': "0x18 1x20"},
        "The model openai:m has failed so often that it is left alone (circuit 2; 2: open, 1: on trial)",
        {"model": "openai:m"},
    ),
    "MeshwrightStoreAway": Case(
        {'meshwright_store_failures_total{reason="STORE_UNAVAILABLE",job="clerk",instance="a"}': "0+10x40"},
        {
            'meshwright_store_failures_total{reason="STORE_UNAVAILABLE",job="clerk",instance="a"}': "0x18 1x20",
            'meshwright_store_failures_total{reason="STORE_DENIED",instance="a"}': "0+10x40",
        },
        "The store did not serve 20 requests of clerk at a within 2 minutes",
        {"job": "clerk", "instance": "a"},
    ),
    "MeshwrightWebhookGivenUp": Case(
        {'meshwright_webhooks_total{endpoint="crm",outcome="given_up"}': "_x20 2x90"},
        {
            'meshwright_webhooks_total{endpoint="crm",outcome="given_up"}': "2x90",
            'meshwright_webhooks_total{endpoint="crm",outcome="failed"}': "0+5x90",
        },
        "2 events for the webhook crm were never delivered (given_up)",
        {"endpoint": "crm", "outcome": "given_up"},
        "70m",
    ),
    "MeshwrightLoopLag": Case(
        buckets("meshwright_event_loop_lag_seconds", 'job="clerk",instance="a"', {"0.25": 0, "0.5": 60, "+Inf": 60}),
        buckets("meshwright_event_loop_lag_seconds", 'job="clerk",instance="a"', {"0.25": 59, "0.5": 60, "+Inf": 60}),
        "The event loop of clerk at a runs 475ms late",
        {"job": "clerk", "instance": "a"},
    ),
    "MeshwrightEdgeErrors": Case(
        requests("0+90x40", "0+10x40"),
        requests("0+98x40", "0+2x40", 'envoy_http_conn_manager_prefix="internal"', "0+90x40"),
        "The edge answers 10% of its requests with 5xx",
    ),
    "MeshwrightEdgeNobodyServes": Case(
        members("agent-clerk", "2x40", "2x5 0x40", "a") | members("agent-clerk", "2x40", "2x40", "b"),
        members("agent-clerk", "2x40", "2x18 0x1 2x20") | members("spans", "0x40", "0x40"),
        "An edge knows 0 instances of agent-clerk that take calls",
        {"envoy_cluster_name": "agent-clerk"},
    ),
    "MeshwrightEdgeInstancesOut": Case(
        members("agent-clerk", "3x60", "3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3 2 3"),
        members("agent-clerk", "3x60", "3x25 1x1 3x20") | members("limits", "3x60", "1x60"),
        "An edge leaves 1 instances of agent-clerk out again and again",
        {"envoy_cluster_name": "agent-clerk"},
        "30m",
    ),
    "MeshwrightRateLimits": Case(
        limited("address_limit", "0+100x40", "0+25x40") | limited("tenant_limit", "0+75x40", "0+1x40"),
        limited("address_limit", "0+100x40", "0+5x40"),
        "address_limit refuses 25% of the requests at the edge",
        {"envoy_local_http_ratelimit_prefix": "address_limit"},
        "30m",
    ),
    "MeshwrightSharedLimitsAway": (
        Case(
            shared("0+95x40", "0+5x40") | shared("0+100x40", "0+0x40", "b"),
            shared("0+995x40", "0+5x40") | shared("0+50x40", None, "b"),
            "a gets no answer from the shared rate limits for 5% of its calls",
            {"instance": "a"},
        ),
        Case(
            shared(None, "0+5x40"),  # it was never there
            shared("0+100x40", "0+5x5 25x40"),
            "a gets no answer from the shared rate limits for 100% of its calls",
            {"instance": "a"},
        ),
    ),
    "MeshwrightEdgeMemory": Case(
        {'envoy_overload_envoy_resource_monitors_fixed_heap_pressure{instance="a"}': "20x10 86x20"},
        {'envoy_overload_envoy_resource_monitors_fixed_heap_pressure{instance="a"}': "84x18 86x1 84x20"},
        "Envoy at a uses 86 % of its heap, and sheds load",
        {"instance": "a"},
    ),
    "MeshwrightEdgeConnections": Case(
        {'envoy_listener_downstream_global_cx_overflow{instance="a",envoy_listener_address="e"}': "_x15 4x10"},
        {'envoy_listener_downstream_global_cx_overflow{instance="a",envoy_listener_address="e"}': "4x40"},
        "Envoy at a refused 4 connections: it has as many as it takes",
        {"instance": "a"},
    ),
    "MeshwrightTargetDown": Case(
        up("agent", "planner", "1x5 0x40"),
        up("agent", "planner", "1x5 0x2 1x40") | {'up{job="other",instance="i"}': "0x40"},
        "planner at planner-0 (agent) tells no metrics (up is 0)",
        {"mesh_role": "agent", "job": "planner", "instance": "planner-0"},
    ),
    "MeshwrightRoleAbsent": (
        Case(
            whole() | up("agent", "planner", "0x40") | up("agent", "planner", "0x40", 1),
            whole() | up("agent", "planner", "0x40") | up("agent", "planner", "1x40", 1),
            "0 instances of agent planner tell metrics",
            {"mesh_role": "agent", "job": "planner"},
        ),
        *(
            Case(
                {name: values for name, values in whole().items() if f'mesh_role="{role}"' not in name},
                whole(),
                f"0 instances of {role} tell metrics",
                {"mesh_role": role},
            )
            for role in ROLES
        ),
    ),
    "MeshwrightRestarts": (
        Case(
            {f"process_start_time_seconds{{{OF_REGISTRY}}}": "100x5 400x3 600x3 800x20"},
            {
                f"process_start_time_seconds{{{OF_REGISTRY}}}": "100x5 400x20 900x40",
                'process_start_time_seconds{job="other"}': "0+60x40",
            },
            "registry at registry-0 (registry) has started anew 3 times within 30 minutes",
            {"mesh_role": "registry", "job": "registry", "instance": "registry-0"},
            "25m",
        ),
        Case(
            {f"envoy_server_uptime{{{OF_EDGE}}}": "0+60x5 0+60x5 0+60x5 0+60x20"},
            {f"envoy_server_uptime{{{OF_EDGE}}}": "0+60x10 0+60x40"},
            "gateway at gateway-0 (edge) has started anew 3 times within 30 minutes",
            {"mesh_role": "edge", "job": "gateway", "instance": "gateway-0"},
            "25m",
        ),
    ),
    "MeshwrightCertificateExpires": (
        Case(
            {'meshwright_certificate_expires_seconds{job="clerk",instance="a"}': "87600x40"},
            {
                'meshwright_certificate_expires_seconds{job="clerk",instance="a"}': "6048000x40",
                'meshwright_certificate_expires_seconds{job="clerk",instance="b"}': "0x40",
            },
            "The certificate of clerk at a expires in 1d 0h 0m 0s",
            {"job": "clerk", "instance": "a"},
        ),
        Case(
            {'envoy_server_days_until_first_cert_expiring{job="clerk",instance="a"}': "6x40"},
            {'envoy_server_days_until_first_cert_expiring{job="clerk",instance="a"}': "4294967295x40"},  # it shows none
            "The certificate of clerk at a expires in 6d 0h 0m 0s",
            {"job": "clerk", "instance": "a"},
        ),
    ),
}


def scenario(series, name, at, alerts):
    return {
        "interval": "1m",
        "input_series": [{"series": series_name, "values": values} for series_name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alerts}],
    }


ONE_BY_ONE = [
    (name, case) for name, cases in CASES.items() for case in (cases if isinstance(cases, tuple) else (cases,))
]


@needs_promtool
@pytest.mark.parametrize(("name", "case"), ONE_BY_ONE, ids=[name for name, _ in ONE_BY_ONE])
def test_an_alert_fires_and_stays_silent(name, case, tmp_path):
    alert = ALL[name]
    told = {
        "exp_labels": {"severity": alert.severity, **case.labels},
        "exp_annotations": {"summary": case.summary, "runbook_url": f"docs/runbooks/{alert.runbook}.md"},
    }
    checked = {
        "rule_files": [str(MONITORING / "prometheus-rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [scenario(case.fires, name, case.at, [told]), scenario(case.quiet, name, case.at, [])],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(checked))
    code, said = promtool("test", "rules", str(tmp_path / "case.yaml"))
    assert code == 0, said


@needs_promtool
def test_prometheus_reads_the_rules():
    code, said = promtool("check", "rules", str(MONITORING / "prometheus-rules.yaml"))
    assert code == 0, said


def test_every_alert_has_a_case():
    assert set(CASES) == set(ALL)


def test_rendered_files_are_what_the_tables_say():
    for name, text in render.files().items():
        assert (MONITORING / name).read_text() == text, f"{name}: run `make monitoring`"


@pytest.mark.parametrize("alert", ALL.values(), ids=lambda alert: alert.name)
def test_an_alert_says_what_is_so_and_leads_to_its_runbook(alert):
    assert "$value" in alert.summary
    assert re.fullmatch(r"\d+[mhd]", alert.lasts)
    text = (REPO / alert.rule()["annotations"]["runbook_url"]).read_text()
    assert alert.name in text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "What it means",
        "What users feel",
        "How to look",
        "How to mitigate",
        "How to end it",
    ]
    assert "```" in text
    assert re.search(r"meshwright ", text)


def test_every_runbook_belongs_to_an_alert():
    assert {path.stem for path in (REPO / "docs/runbooks").glob("*.md")} == {alert.runbook for alert in ALL.values()}


def test_shares_that_alerts_read_are_recorded():
    used = {window for alert in ALL.values() for window in re.findall(r"ratio_rate(\w+)", alert.expression)}
    assert used == set(WINDOWS)


@pytest.mark.parametrize("page", sorted((REPO / "docs/runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_commands_of_a_runbook_exist(page):
    for words in re.findall(r"^meshwright ([a-z -]+?)(?: [A-Z-]|$)", page.read_text(), re.MULTILINE):
        command = words.split(" --")[0].split()
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0, words
