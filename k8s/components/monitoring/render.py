"""What is rendered: rules for Prometheus and for its operator, dashboards for Grafana. Pure."""

import json
from typing import Any

import yaml

from k8s.components.monitoring import alerts
from k8s.components.monitoring.dashboards import DASHBOARDS

NOTE = "# Rendered from alerts.py by `make monitoring`: change that.\n"


def files() -> dict[str, str]:
    """Returns the text of each rendered file, by its name."""
    groups = alerts.groups()
    operated = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "meshwright"},
        "spec": {"groups": groups},
    }
    pages = {f"dashboard-{page.name}.json": json.dumps(page.drawn(), indent=1) + "\n" for page in DASHBOARDS}
    return pages | {"rules.yaml": spelled(operated), "prometheus-rules.yaml": spelled({"groups": groups})}


def outlines() -> str:
    """Returns expression and duration of each alert, by its name: what `meshwright doctor` wants Prometheus to hold."""
    told = {one.name: [one.expression, one.lasts] for group in alerts.ALERTS.values() for one in group}
    return json.dumps(told, indent=1) + "\n"


def spelled(document: dict[str, Any]) -> str:
    """Spells a document as YAML."""
    return NOTE + yaml.safe_dump(document, sort_keys=False, width=200)
