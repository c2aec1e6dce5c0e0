"""The alerts by which a version is judged: which, and how they are restricted to its pods."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k8s.components.monitoring.alerts import ALERTS
from k8s.components.rollouts import canary
from tests.operate.delivering import NAME, REPO
from tests.operate.promtool import needs_promtool, promtool

ALL = {alert.name: alert for group in ALERTS.values() for alert in group}


def test_every_alert_is_asked_or_there_is_a_reason_why_not():
    assert sorted([*canary.OF_PODS, *canary.OF_AGENT, *canary.NOT_ASKED]) == sorted(ALL)
    assert all(canary.NOT_ASKED.values())


@pytest.mark.parametrize("name", [*canary.OF_PODS, *canary.OF_AGENT])
def test_an_expression_is_the_alerts_own_with_one_label_more(name):
    told = canary.of_version(NAME, f"{NAME}-abc")[name]
    matcher = f'agent="{NAME}"' if name in canary.OF_AGENT else f'pod=~"{NAME}-abc-.*"'
    assert told.replace(f"{{{matcher}}}", "").replace(f",{matcher}", "") == ALL[name].expression
    assert told.count(matcher) == len(canary.SELECTOR.findall(ALL[name].expression))


@given(st.lists(st.sampled_from(['a="b"', 'code=~"A|B"', ""]), min_size=1, max_size=3))
def test_whatever_a_selector_chooses_by_is_kept(chosen):
    bare = " or ".join(f"sum by (pod) (rate(meshwright_x_total{{{one}}}[5m]))" for one in chosen)
    told = canary.restricted(bare, 'pod=~"x-.*"')
    assert told.count('pod=~"x-.*"') == len(chosen)
    assert told.replace(',pod=~"x-.*"', "").replace('pod=~"x-.*"', "") == bare


@needs_promtool
def test_prometheus_reads_every_expression(tmp_path):
    asked = canary.of_version(NAME, f"{NAME}-abc") | {"enough": canary.evidence(f"{NAME}-abc", is_agent=False)}
    rules = [{"alert": name, "expr": expression} for name, expression in asked.items()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "canary", "rules": rules}]}))
    code, said = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert code == 0, said


def test_argo_rollouts_asks_the_same_as_delivery():
    document = yaml.safe_load((REPO / "k8s/components/rollouts/analysis.yaml").read_text())
    asked = {one["name"]: one["provider"]["prometheus"]["query"] for one in document["spec"]["metrics"]}
    filled = {
        name: query.replace("{{args.agent}}", NAME).replace("{{args.hash}}", "abc") for name, query in asked.items()
    }
    version = canary.of_version(NAME, f"{NAME}-abc")
    assert filled == version | {"enough": canary.evidence(f"{NAME}-abc")}
    for one in document["spec"]["metrics"]:
        if one["name"] != "enough":
            assert (one["count"], one["interval"]) == (canary.LOOKS, f"{canary.INTERVAL_S}s")
            assert (one["failureLimit"], one["successCondition"]) == (0, "len(result) == 0")
