"""Alerts: each fires when it should, in the words that it should, and is silent otherwise."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from k8s.components.monitoring import render
from k8s.components.monitoring.alerts import ALERTS, WINDOWS
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


def calls(ok, failed):
    return {
        'meshwright_calls_total{method="/m",code="OK"}': ok,
        'meshwright_calls_total{method="/m",code="UNAVAILABLE"}': failed,
    }


def buckets(metric, labels, bounds):
    return {f'{metric}_bucket{{{labels},le="{bound}"}}': f"0+{step}x400" for bound, step in bounds.items()}


BURNT = "of calls failed within {}: at {} times the rate that the objective of 99.9 % allows"
CASES = {
    "MeshwrightErrorRate": Case(
        calls("0+80x400", "0+20x400"),
        calls("0+98x400", "0+2x400") | {'meshwright_calls_total{method="/m",code="NOT_FOUND"}': "0+50x400"},
        "20% of calls of /m fail by our doing",
        {"method": "/m"},
    ),
    "MeshwrightSlowCalls": Case(
        buckets("meshwright_call_seconds", 'method="/m"', {"1": 50, "2.5": 100, "+Inf": 100}),
        buckets("meshwright_call_seconds", 'method="/m"', {"1": 99, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'method="/a/WatchTask"', {"1": 0, "2.5": 100, "+Inf": 100})
        | buckets("meshwright_call_seconds", 'method="/a/RunTask"', {"1": 0, "2.5": 100, "+Inf": 100}),
        "One in twenty calls of /m takes longer than 2.35s",
        {"method": "/m"},
        "30m",
    ),
    "MeshwrightErrorBudgetBurnsFast": Case(
        calls("0+98x400", "0+2x400"),
        calls("0+99x60 5940+100x400", "0+2x60 120x400"),  # it was so for an hour, and is over
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
        {'meshwright_takeovers_total{agent="clerk"}': "0+2x40"},
        {'meshwright_takeovers_total{agent="clerk"}': "0x14 1x20"},
        "20 tasks of clerk were taken over from lost workers within 10 minutes",
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
        {'meshwright_budget_refusals_total{agent="clerk",tenant="acme",what="task"}': "_x15 4x10"},
        {'meshwright_budget_refusals_total{agent="clerk",tenant="acme",what="step"}': "0+1x40"},
        "4 tasks of acme for clerk were refused: a shared budget is used up",
        {"agent": "clerk", "tenant": "acme"},
    ),
    "MeshwrightToolCircuitOpen": Case(
        {'meshwright_tool_circuit{tool="tax.add@1.0.0",instance="a"}': "0x10 2x20"},
        {'meshwright_tool_circuit{tool="tax.add@1.0.0",instance="a"}': "0 2 1 0 1 0x20"},
        "The tool tax.add@1.0.0 has failed so often that it is left alone (circuit 2)",
        {"tool": "tax.add@1.0.0"},
    ),
    "MeshwrightModelCircuitOpen": Case(
        {'meshwright_model_circuit{model="openai:m",instance="a"}': "0x10 2x20"},
        {'meshwright_model_circuit{model="openai:m",instance="a"}': "0x18 1x20"},
        "The model openai:m has failed so often that it is left alone (circuit 2)",
        {"model": "openai:m"},
    ),
    "MeshwrightStoreAway": Case(
        {'meshwright_store_failures_total{reason="STORE_UNAVAILABLE",instance="a"}': "0+10x40"},
        {
            'meshwright_store_failures_total{reason="STORE_UNAVAILABLE",instance="a"}': "0x18 1x20",
            'meshwright_store_failures_total{reason="STORE_DENIED",instance="a"}': "0+10x40",
        },
        "The store did not serve 20 requests of a within 2 minutes",
        {"instance": "a"},
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
        buckets("meshwright_event_loop_lag_seconds", 'instance="a"', {"0.25": 0, "0.5": 60, "+Inf": 60}),
        buckets("meshwright_event_loop_lag_seconds", 'instance="a"', {"0.25": 59, "0.5": 60, "+Inf": 60}),
        "The event loop of a runs 475ms late",
        {"instance": "a"},
    ),
    "MeshwrightCertificateExpires": Case(
        {'meshwright_certificate_expires_seconds{instance="a"}': "87600x40"},
        {
            'meshwright_certificate_expires_seconds{instance="a"}': "6048000x40",
            'meshwright_certificate_expires_seconds{instance="b"}': "0x40",
        },
        "The certificate of a expires in 1d 0h 0m 0s",
        {"instance": "a"},
    ),
}


def scenario(series, name, at, alerts):
    return {
        "interval": "1m",
        "input_series": [{"series": series_name, "values": values} for series_name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alerts}],
    }


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_and_stays_silent(name, tmp_path):
    case, alert = CASES[name], ALL[name]
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
