"""The rules hold of base and bundled agents as they are written, and each of them notices what breaks it."""

import copy

import pytest

from meshwright.agents.library.bundle import BUNDLED
from tests.k8s.objects import K8S, least_instances, named, of_kind, pod, rendered, workloads, written
from tests.k8s.rules import (
    RULES,
    addresses,
    digests,
    disruption,
    grace,
    probes,
    references,
    restricted,
    routes,
    scaling,
    selectors,
    settings_exist,
    targets,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_written_follows_every_rule(rule):
    assert list(rule(written())) == []


def test_all_processes_are_there():
    assert set(workloads(written())) == {"store", "install", "registry", "gateway", *BUNDLED}


def container(objects, workload, name=""):
    found = pod(workloads(objects)[workload])["containers"]
    return next(one for one in found if name in {"", one["name"]})


def one(kind, **spec):
    return {"kind": kind, "metadata": {"name": "one"}, "spec": spec}


def spread(objects, workload):
    return pod(workloads(objects)[workload])["topologySpreadConstraints"][0]["labelSelector"]


def scaler(name, kind="HorizontalPodAutoscaler", of="Deployment"):
    target = {"apiVersion": "apps/v1", "kind": of, "name": name}
    return {"kind": kind, "metadata": {"name": name}, "spec": {"scaleTargetRef": target, "minReplicas": 2}}


def budget(objects, name, at_most):
    named(objects, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] = at_most


def environment(objects, workload, name, value):
    container(objects, workload)["env"].append({"name": name, "value": value})


BREAKS = [
    (selectors, lambda o: workloads(o)["registry"]["spec"]["selector"]["matchLabels"].update(x="y")),
    (selectors, lambda o: named(o, "Service", "store")["spec"]["selector"].update({"app.kubernetes.io/name": "shop"})),
    (selectors, lambda o: named(o, "Service", "store")["spec"]["selector"].clear()),
    (selectors, lambda o: spread(o, "planner").update(matchLabels={"a": "b"})),
    (selectors, lambda o: named(o, "PodDisruptionBudget", "planner")["spec"]["selector"]["matchLabels"].update(a="b")),
    (selectors, lambda o: o.append(one("NetworkPolicy", podSelector={"matchLabels": {"a": "b"}}))),
    (targets, lambda o: named(o, "Service", "registry")["spec"]["ports"][0].update(targetPort="http")),
    (targets, lambda o: container(o, "gateway", "envoy")["ports"].clear()),
    (targets, lambda o: o.append(scaler("nobody"))),
    (routes, lambda o: o.append(one("HTTPRoute", rules=[{"backendRefs": [{"name": "gateway", "port": 80}]}]))),
    (probes, lambda o: container(o, "registry")["readinessProbe"]["grpc"].update(port=7070)),
    (probes, lambda o: container(o, "registry")["livenessProbe"]["grpc"].pop("service")),
    (probes, lambda o: container(o, "planner")["readinessProbe"]["grpc"].update(service="liveness")),
    (probes, lambda o: container(o, "planner").pop("readinessProbe")),
    (probes, lambda o: container(o, "planner").pop("startupProbe")),
    (probes, lambda o: container(o, "planner").update(readinessProbe={"tcpSocket": {"port": "grpc"}})),
    (probes, lambda o: container(o, "gateway", "envoy")["readinessProbe"]["httpGet"].update(port="http")),
    (probes, lambda o: named(o, "ConfigMap", "settings")["data"].update(MESHWRIGHT_HEALTH_PORT="7098")),
    (grace, lambda o: pod(workloads(o)["planner"]).update(terminationGracePeriodSeconds=75)),
    (grace, lambda o: pod(workloads(o)["registry"]).update(terminationGracePeriodSeconds=20)),
    (grace, lambda o: pod(workloads(o)["gateway"]).update(terminationGracePeriodSeconds=30)),
    (grace, lambda o: container(o, "gateway", "envoy")["lifecycle"]["preStop"]["sleep"].update(seconds=5)),
    (grace, lambda o: environment(o, "registry", "MESHWRIGHT_DRAIN_S", "60")),
    (settings_exist, lambda o: environment(o, "registry", "MESHWRIGHT_CONCURRENCY", "8")),
    (settings_exist, lambda o: environment(o, "planner", "MESHWRIGHT_EDGE_PORT", "8443")),
    (settings_exist, lambda o: environment(o, "planner", "MESHWRIGHT_LEASE_S", "soon")),
    (settings_exist, lambda o: named(o, "ConfigMap", "settings")["data"].update(MESHWRIGHT_COLOUR="red")),
    (references, lambda o: pod(workloads(o)["planner"])["volumes"][0]["secret"].update(secretName="planer-tls")),
    (references, lambda o: container(o, "planner")["env"][0]["valueFrom"]["secretKeyRef"].update(name="store-url")),
    (references, lambda o: container(o, "planner")["envFrom"].append({"configMapRef": {"name": "limits"}})),
    (references, lambda o: container(o, "planner")["volumeMounts"].append({"name": "documents", "mountPath": "/d"})),
    (restricted, lambda o: pod(workloads(o)["store"])["securityContext"].pop("runAsNonRoot")),
    (restricted, lambda o: pod(workloads(o)["store"])["securityContext"].pop("seccompProfile")),
    (restricted, lambda o: pod(workloads(o)["install"]).pop("automountServiceAccountToken")),
    (restricted, lambda o: pod(workloads(o)["planner"]).update(hostNetwork=True)),
    (restricted, lambda o: pod(workloads(o)["planner"])["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    (restricted, lambda o: container(o, "gateway", "envoy")["securityContext"].update(readOnlyRootFilesystem=False)),
    (restricted, lambda o: container(o, "registry")["resources"].pop("limits")),
    (disruption, lambda o: budget(o, "planner", 0)),
    (disruption, lambda o: budget(o, "planner", 2)),
    (disruption, lambda o: o.remove(named(o, "PodDisruptionBudget", "gateway"))),
    (scaling, lambda o: o.append(scaler("planner"))),
    (scaling, lambda o: o.extend([scaler("gateway"), scaler("gateway", "ScaledObject")])),
    (scaling, lambda o: o.append(scaler("gateway", of="Rollout"))),
    (scaling, lambda o: o.append(one("Rollout", workloadRef={"name": "planner"}))),
    (addresses, lambda o: named(o, "Service", "registry")["spec"]["ports"][0].update(port=7071)),
    (digests, lambda o: container(o, "planner").update(image="meshwright/runtime:0.1.0")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "broken"), BREAKS)
def test_a_rule_notices_what_breaks_it(rule, broken):
    objects = copy.deepcopy(written())
    broken(objects)
    assert list(rule(objects))


def test_every_rule_is_broken_once():
    assert {rule for rule, _ in BREAKS} == {*RULES, digests}


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_overlay_follows_every_rule(overlays, name, rule):
    assert list(rule(overlays[name])) == []


def test_what_is_written_is_what_kubectl_renders_but_for_names_and_tags(tree):
    def known(objects):
        return {(one["kind"], one["metadata"]["name"]) for one in objects}

    assert known(rendered(tree / "base") + rendered(tree / "agents")) == known(written())


def test_production_runs_what_the_delivery_workflow_names_by_digest(overlays):
    assert list(digests(overlays["prod"])) == []


def test_production_is_not_rendered_without_digests(tree):
    with pytest.raises(RuntimeError, match="overlays/prod/images"):
        rendered(K8S / "overlays/prod")


def test_production_has_two_of_everything_that_may_be_two(overlays):
    objects = overlays["prod"]
    few = [name for name in ("registry", "gateway", *BUNDLED) if least_instances(objects, name) < 2]
    assert few == []


def test_agents_are_scaled_by_what_waits_and_servers_by_their_cpu(overlays):
    for name in ("staging", "prod"):
        objects = overlays[name]
        by_queue = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "ScaledObject")}
        by_cpu = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")}
        assert (by_queue, by_cpu) == ({*BUNDLED}, {"gateway", "registry"})


def test_secrets_of_production_are_all_made_here_or_by_its_operators(overlays):
    objects = overlays["prod"]
    made = {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}
    made |= {one["spec"]["target"]["name"] for one in of_kind(objects, "ExternalSecret")}
    wanted = {
        v["secret"]["secretName"] for w in workloads(objects).values() for v in pod(w)["volumes"] if "secret" in v
    }
    assert wanted | {"store-urls"} <= made
    assert not of_kind(objects, "Secret")  # none with a value in it
