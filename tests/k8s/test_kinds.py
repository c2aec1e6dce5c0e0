"""Every object is one that Kubernetes, or the operator that it is for, takes: no field is misspelled."""

import copy
import subprocess
import sys

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from tests.k8s.objects import K8S, REPO, named, of_kind

KINDS = yaml.safe_load((REPO / "tests/k8s/kinds.yaml").read_text())
VALIDATORS = {kind: jsonschema_rs.Draft7Validator(known["spec"]) for kind, known in KINDS.items()}
"""Of the kinds of operators: Kubernetes' own are validated by its schemas."""


def is_wrong(document):
    """Tells whether somebody would refuse an object."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in VALIDATORS:
        unknown = document.keys() - {"apiVersion", "kind", "metadata", "spec"}
        return bool(unknown) or not VALIDATORS[kind].is_valid(document["spec"])
    try:
        kubernetes_validate.validate(document, "1.37", strict=True)
    except kubernetes_validate.ValidationError:
        return True
    return False


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_every_object_of_an_overlay_is_taken(overlays, name):
    assert [(one["kind"], one["metadata"]["name"]) for one in overlays[name] if is_wrong(one)] == []


def test_what_is_no_object_of_kubernetes_has_a_schema_here(overlays):
    """Kubernetes' own validator only warns of kinds that it does not know."""
    own = ("v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")
    others = {f"{one['apiVersion']}/{one['kind']}" for one in overlays["prod"] if one["apiVersion"] not in own}
    assert others == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_field_that_is_misspelled_or_missing_is_noticed(overlays, kind):
    version, _, name = kind.rpartition("/")
    document = next(one for one in overlays["prod"] if (one["apiVersion"], one["kind"]) == (version, name))
    assert not is_wrong(document)
    assert is_wrong({**document, "spec": {**document["spec"], "colour": "red"}})
    assert is_wrong({**document, "status": {}})
    for field in KINDS[kind]["spec"].get("required", ()):
        broken = copy.deepcopy(document)
        del broken["spec"][field]
        assert is_wrong(broken), field


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_schema_names_its_source(kind):
    assert KINDS[kind]["source"].startswith("https://github.com/")


def test_shared_limits_are_those_of_the_gateways_settings():
    command = [sys.executable, "-m", "meshwright.gateway.limits"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    assert (K8S / "components/ratelimit/limits.yaml").read_text() == printed


def test_the_edge_is_known_by_the_hosts_of_its_routes(overlays):
    objects = overlays["prod"]
    hosts = {host for route in of_kind(objects, "HTTPRoute", "GRPCRoute") for host in route["spec"]["hostnames"]}
    assert set(named(objects, "Certificate", "edge")["spec"]["dnsNames"]) == hosts
    gateway = named(objects, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    told = {entry["name"]: entry.get("value") for entry in gateway["env"]}
    assert set(told["MESHWRIGHT_ALLOWED_HOSTS"].split()) == hosts
    assert told["MESHWRIGHT_TRUSTED_HOPS"] == "1"
    assert named(objects, "BackendTLSPolicy", "gateway")["spec"]["validation"]["hostname"] in hosts


def test_secrets_from_a_vault_have_the_keys_that_pods_read(overlays):
    objects = overlays["prod"]
    made = {
        one["spec"]["target"]["name"]: {entry["secretKey"] for entry in one["spec"]["data"]}
        for one in of_kind(objects, "ExternalSecret")
    }
    pods = [one["spec"]["template"]["spec"] for one in of_kind(objects, "Deployment", "StatefulSet", "Job")]
    read = [
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for pod in pods
        for container in pod["containers"]
        for entry in container.get("env", ())
        if "secretKeyRef" in entry.get("valueFrom", {})
    ]
    assert {key for _, key in read} == made["store-urls"]
    assert {name for name, _ in read} == {"store-urls"}
    assert made["store-users"] == {"users.acl"}
    (file,) = made["content-keys"]
    (keys_file,) = {
        entry["value"]
        for pod in pods
        for container in pod["containers"]
        for entry in container.get("env", ())
        if entry["name"] == "MESHWRIGHT_CONTENT_KEYS_FILE"
    }
    assert keys_file.rpartition("/")[2] == file


def test_monitors_find_ports_and_analyses_find_metrics(overlays):
    objects = overlays["prod"]
    (monitor,) = of_kind(objects, "PodMonitor")
    assert monitor["spec"]["selector"] == {}
    scraped = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    for workload in of_kind(objects, "Deployment"):
        template = workload["spec"]["template"]
        if template["metadata"]["labels"]["app.kubernetes.io/component"] in {"agent", "registry"}:
            assert scraped <= {port["name"] for one in template["spec"]["containers"] for port in one["ports"]}
    (analysis,) = of_kind(objects, "AnalysisTemplate")
    for rollout in of_kind(objects, "Rollout"):
        (step,) = [step["analysis"] for step in rollout["spec"]["strategy"]["canary"]["steps"] if "analysis" in step]
        assert [one["templateName"] for one in step["templates"]] == [analysis["metadata"]["name"]]
        assert {one["name"] for one in step["args"]} == {one["name"] for one in analysis["spec"]["args"]}


def test_what_agents_are_scaled_and_judged_by_is_what_processes_count(overlays):
    from prometheus_client import REGISTRY

    from meshwright.agents.result import STATES
    from meshwright.core import telemetry

    telemetry.TASKS_ENDED.labels("judged", "FAILED", "error").inc()
    telemetry.TASKS_READY.labels("judged", "").set(3)
    assert REGISTRY.get_sample_value("meshwright_tasks_ready", {"agent": "judged", "version": ""}) == 3
    for scaler in of_kind(overlays["prod"], "ScaledObject"):
        name = scaler["metadata"]["name"]
        asked = f'sum(max by (version) (meshwright_tasks_ready{{agent="{name}"}}))'
        assert scaler["spec"]["triggers"][0]["metadata"]["query"] == asked
    (analysis,) = of_kind(overlays["prod"], "AnalysisTemplate")
    query = analysis["spec"]["metrics"][0]["provider"]["prometheus"]["query"]
    labels = {"agent": "judged", "status": "FAILED", "finish_reason": "error"}
    assert "meshwright_tasks_ended_total{agent=" in query
    assert REGISTRY.get_sample_value("meshwright_tasks_ended_total", labels) == 1
    assert 'status="FAILED"' in query
    assert "FAILED" in STATES.values()
