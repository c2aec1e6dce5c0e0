"""k8s/components/monitoring: what it names is there, and what is there is named."""

import json
from pathlib import Path

import pytest
import yaml

from k8s.components.monitoring.dashboards import COLUMNS, DASHBOARDS

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


def test_pods_are_scraped_at_the_port_that_their_manifests_name():
    base = yaml.safe_load_all((MONITORING.parents[1] / "base/registry.yaml").read_text())
    (pods,) = [document["spec"]["template"] for document in base if document["kind"] == "Deployment"]
    named = {port["name"] for container in pods["spec"]["containers"] for port in container["ports"]}
    monitor = yaml.safe_load((MONITORING / "pods.yaml").read_text())
    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= named


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
