"""How a new version is judged: by the alerts' own expressions, held against its own pods. Pure."""

import re
from typing import Any

import yaml

from k8s.components.monitoring.alerts import ALERTS

OF_PODS = (
    "MeshwrightErrorRate",
    "MeshwrightSlowCalls",
    "MeshwrightTasksFail",
    "MeshwrightGuardrailViolations",
    "MeshwrightToolCircuitOpen",
    "MeshwrightModelCircuitOpen",
    "MeshwrightStoreAway",
    "MeshwrightLoopLag",
    "MeshwrightEdgeErrors",
    "MeshwrightRestarts",
)
"""Alerts about what a process does itself: asked of the new version's pods."""
OF_AGENT = ("MeshwrightQueueAge", "MeshwrightDeadLetters", "MeshwrightTakeoverStorm")
"""Alerts that others tell of: a process that dies is counted by the one that takes over. Asked of the whole agent."""
NOT_ASKED = {
    "MeshwrightErrorBudgetBurnsFast": "of the whole mesh; MeshwrightErrorRate asks the same of the pods",
    "MeshwrightErrorBudgetBurns": "of the whole mesh; MeshwrightErrorRate asks the same of the pods",
    "MeshwrightErrorBudgetBurnsSlowly": "of the whole mesh; MeshwrightErrorRate asks the same of the pods",
    "MeshwrightErrorBudgetShrinks": "of the whole mesh; MeshwrightErrorRate asks the same of the pods",
    "MeshwrightCostPerHour": "of the whole mesh",
    "MeshwrightBudgetExhausted": "what tenants may spend is no matter of versions",
    "MeshwrightWebhookGivenUp": "endpoints are not ours",
    "MeshwrightCertificateExpires": "certificates do not come with a version",
    "MeshwrightEdgeConnections": "how many connect is no matter of versions",
    "MeshwrightEdgeInstancesOut": "of the whole mesh; a version whose pods are not ready is taken back anyhow",
    "MeshwrightEdgeNobodyServes": "of the whole mesh; a version whose pods are not ready is taken back anyhow",
    "MeshwrightEdgeMemory": "takes longer to tell than a version is looked at",
    "MeshwrightRateLimits": "how much callers ask is no matter of versions",
    "MeshwrightSharedLimitsAway": "what does not answer is beside the mesh, and of no version of it",
    "MeshwrightRoleAbsent": "of the whole mesh",
    "MeshwrightTargetDown": "a version that is not scraped has done too little to be judged",
}
"""All other alerts, and why a version is not judged by them."""
LOOKS = 5
INTERVAL_S = 60
ENOUGH = 5
"""Tasks, or calls of a server, below which nothing is known: a fifth of fewer is less than one."""
TEMPLATE = "alerts"
NAMESPACE = "meshwright"
"""Where the rollouts are: an overlay may render the analysis with no namespace of its own."""
PROMETHEUS = "http://prometheus-operated.monitoring:9090"
EXPRESSIONS = {alert.name: alert.expression for group in ALERTS.values() for alert in group}
SELECTOR = re.compile(r"\b((?:meshwright|envoy|process)_\w+)(?:\{([^}]*)\})?")


def restricted(expression: str, matcher: str) -> str:
    """Has every selector of an expression choose by one label more."""
    return SELECTOR.sub(lambda found: f"{found[1]}{{{','.join(filter(None, (found[2], matcher)))}}}", expression)


def of_pods(replica_set: str) -> str:
    """Returns the matcher of a replica set's pods."""
    return f'pod=~"{replica_set}-.*"'


def of_agent(name: str) -> dict[str, str]:
    """Returns the alerts about a whole agent, by name: PromQL; what it returns fires."""
    return {alert: restricted(EXPRESSIONS[alert], f'agent="{name}"') for alert in OF_AGENT}


def of_version(name: str, replica_set: str) -> dict[str, str]:
    """Returns all alerts that a version is judged by, by name.

    Args:
        name: Of the agent or server.
        replica_set: That runs the version; its pods are called after it.
    """
    return {alert: restricted(EXPRESSIONS[alert], of_pods(replica_set)) for alert in OF_PODS} | of_agent(name)


def evidence(replica_set: str, *, is_agent: bool = True) -> str:
    """Returns what holds once a version has done enough to be judged: tasks that it ended, or calls that it served."""
    metric = "meshwright_tasks_ended_total" if is_agent else "meshwright_calls_total"
    return f"sum({metric}{{{of_pods(replica_set)}}}) >= {ENOUGH}"


def analysis() -> str:
    """Returns the template by which Argo Rollouts judges a new version, as YAML."""
    name, replica_set = "{{args.agent}}", "{{args.agent}}-{{args.hash}}"
    looked = {"interval": f"{INTERVAL_S}s", "count": LOOKS, "failureLimit": 0, "successCondition": "len(result) == 0"}
    once = {
        "initialDelay": f"{(LOOKS - 1) * INTERVAL_S}s",
        "count": 1,
        "successCondition": "len(result) > 0",
        "failureCondition": "false",
    }
    metrics = [metric(alert, query, looked) for alert, query in of_version(name, replica_set).items()]
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": TEMPLATE, "namespace": NAMESPACE},
        "spec": {
            "args": [{"name": "agent"}, {"name": "hash"}],
            "metrics": [*metrics, metric("enough", evidence(replica_set), once)],
        },
    }
    note = (
        "# Rendered from canary.py by `make gen`: change that. The new version goes on while no alert fires for it;\n"
        "# where it has done too little to be judged, the rollout waits for somebody.\n"
    )
    return note + yaml.safe_dump(document, sort_keys=False, width=500)


def metric(name: str, query: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Returns one thing that Argo Rollouts measures."""
    return {"name": name, **measured, "provider": {"prometheus": {"address": PROMETHEUS, "query": query}}}
