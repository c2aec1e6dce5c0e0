"""Every object is one that Kubernetes, or the operator that it is for, takes: no field is misspelled."""

import copy
import subprocess
import sys

import pytest

from tests.k8s.kinds import KINDS, refusal
from tests.k8s.objects import K8S, named, of_kind, ports


@pytest.mark.parametrize("name", ["dev", "staging", "prod", "lab"])
def test_every_object_of_an_overlay_is_taken(overlays, name):
    assert [(one["kind"], one["metadata"]["name"]) for one in overlays[name] if refusal(one)] == []


def test_what_is_no_object_of_kubernetes_has_a_schema_here(overlays):
    """Kubernetes' own validator only warns of kinds that it does not know."""
    own = ("v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")
    others = {f"{one['apiVersion']}/{one['kind']}" for one in overlays["prod"] if one["apiVersion"] not in own}
    assert others == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_field_that_is_misspelled_or_missing_is_noticed(overlays, kind):
    version, _, name = kind.rpartition("/")
    document = next(one for one in overlays["prod"] if (one["apiVersion"], one["kind"]) == (version, name))
    assert not refusal(document)
    assert refusal({**document, "spec": {**document["spec"], "colour": "red"}})
    assert refusal({**document, "status": {}})
    for field in KINDS[kind]["spec"].get("required", ()):
        broken = copy.deepcopy(document)
        del broken["spec"][field]
        assert refusal(broken), field


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
    assert scraped == {"metrics", "edge-metrics"}
    for workload in of_kind(objects, "Deployment"):
        template = workload["spec"]["template"]
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        wanted = {"agent": {"metrics"}, "registry": {"metrics"}, "gateway": scraped}.get(component, set())
        there = {name for one in template["spec"]["containers"] for name in ports(one)}
        assert scraped & there == wanted
    (analysis,) = of_kind(objects, "AnalysisTemplate")
    for rollout in of_kind(objects, "Rollout"):
        (step,) = [step["analysis"] for step in rollout["spec"]["strategy"]["canary"]["steps"] if "analysis" in step]
        assert [one["templateName"] for one in step["templates"]] == [analysis["metadata"]["name"]]
        assert {one["name"] for one in step["args"]} == {one["name"] for one in analysis["spec"]["args"]}
