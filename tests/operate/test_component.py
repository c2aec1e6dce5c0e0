"""k8s/components/monitoring: what it names is there, and what is there is named."""

import json
from pathlib import Path

import pytest
import yaml

from k8s.components.monitoring.alerts import ROLES
from k8s.components.monitoring.dashboards import COLUMNS, DASHBOARDS
from tests.k8s.objects import workloads, written

MONITORING = Path(__file__).parents[2] / "k8s/components/monitoring"
COMPONENT = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())


def test_every_file_is_named():
    named = {*COMPONENT["resources"], *COMPONENT["configMapGenerator"][0]["files"]}
    there = {path.name for path in MONITORING.iterdir() if path.suffix in (".yaml", ".json")}
    assert there - {"kustomization.yaml", "prometheus-rules.yaml"} == named


def test_rules_are_those_of_prometheus():
    operated = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    assert operated["kind"] == "PrometheusRule"
    assert operated["spec"] == yaml.safe_load((MONITORING / "prometheus-rules.yaml").read_text())


def relabelled(endpoint):
    """Returns what an endpoint's targets get as `mesh_role`: a word, or the pod's label that it is taken from."""
    (rule,) = endpoint["relabelings"]
    assert rule["targetLabel"] == "mesh_role"
    return rule.get("replacement") or rule["sourceLabels"][0].removeprefix("__meta_kubernetes_pod_label_")


def test_targets_bear_the_roles_that_alerts_ask_for():
    monitor = yaml.safe_load((MONITORING / "pods.yaml").read_text())["spec"]
    told = {one["port"]: relabelled(one) for one in monitor["podMetricsEndpoints"]}
    assert told == {"metrics": "app_kubernetes_io_component", "edge-metrics": "edge"}
    templates = [workload["spec"]["template"] for workload in workloads(written()).values()]
    scraped = [one["metadata"]["labels"] for one in templates if "metrics" in str(one["spec"]["containers"])]
    optional = {"tool"}  # a mesh without hosts of tools lacks nothing
    assert {one["app.kubernetes.io/component"] for one in scraped} | {"edge"} == {*ROLES, *optional}
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
    assert all(monitor["jobLabel"] in one for one in scraped)


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.name)
def test_a_dashboard_has_no_two_panels_in_one_place(page):
    drawn = json.loads((MONITORING / f"dashboard-{page.name}.json").read_text())
    assert len({panel["id"] for panel in drawn["panels"]}) == len(page.panels)
    placed = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in drawn["panels"]]
    assert len(set(placed)) == len(placed)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 8 * COLUMNS for panel in drawn["panels"])
    assert len({panel["title"] for panel in drawn["panels"]}) == len(page.panels)


def test_addresses_of_dashboards_are_unique():
    assert len({page.drawn()["uid"] for page in DASHBOARDS}) == len(DASHBOARDS)
