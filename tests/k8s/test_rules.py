"""The rules hold of base and bundled agents as they are written, and each of them notices what breaks it."""

import copy
import os
import re
import subprocess
import textwrap

import pytest

from meshwright.agents.library.bundle import BUNDLED
from meshwright.core.errors import SetupError
from tests.k8s.objects import K8S, REPO, least_instances, named, of_kind, pod, rendered, workloads, written
from tests.k8s.rules import (
    RULES,
    addresses,
    agreed,
    digests,
    disruption,
    farewell,
    grace,
    metrics,
    movable,
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
    assert set(workloads(written())) == {"store", "install", "registry", "gateway", "tools", *BUNDLED}


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


def envoys(objects, words, others):
    given = container(objects, "gateway", "envoy")
    given["command"] = [word.replace(words, others) for word in given["command"]]


def drop(objects, workload, name):
    given = container(objects, workload)["env"]
    given.remove(next(entry for entry in given if entry["name"] == name))


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
    (metrics, lambda o: named(o, "ConfigMap", "settings")["data"].update(MESHWRIGHT_METRICS_PORT="9099")),
    (metrics, lambda o: container(o, "registry")["ports"].pop()),
    (metrics, lambda o: drop(o, "gateway", "MESHWRIGHT_METRICS_HOST")),
    (metrics, lambda o: drop(o, "planner", "MESHWRIGHT_HOST")),
    (metrics, lambda o: drop(o, "gateway", "MESHWRIGHT_INTERNAL_HOST")),
    (metrics, lambda o: drop(o, "gateway", "MESHWRIGHT_INTERNAL_PORT")),
    (metrics, lambda o: container(o, "gateway", "envoy")["ports"].pop()),
    (metrics, lambda o: named(o, "Service", "gateway")["spec"]["ports"][0].update(targetPort="edge-metrics")),
    (grace, lambda o: pod(workloads(o)["planner"]).update(terminationGracePeriodSeconds=75)),
    (grace, lambda o: pod(workloads(o)["registry"]).update(terminationGracePeriodSeconds=20)),
    (grace, lambda o: pod(workloads(o)["gateway"]).update(terminationGracePeriodSeconds=30)),
    (grace, lambda o: container(o, "gateway", "envoy")["lifecycle"]["preStop"]["sleep"].update(seconds=5)),
    (grace, lambda o: environment(o, "registry", "MESHWRIGHT_DRAIN_S", "60")),
    (grace, lambda o: environment(o, "gateway", "MESHWRIGHT_DRAIN_S", "5")),
    (grace, lambda o: envoys(o, "--drain-time-s 10", "--drain-time-s 12")),
    (farewell, lambda o: container(o, "registry").pop("lifecycle")),
    (farewell, lambda o: container(o, "gateway").pop("lifecycle")),
    (farewell, lambda o: named(o, "Service", "planner")["spec"].pop("clusterIP")),
    (settings_exist, lambda o: environment(o, "registry", "MESHWRIGHT_CONCURRENCY", "8")),
    (settings_exist, lambda o: environment(o, "planner", "MESHWRIGHT_EDGE_PORT", "8443")),
    (settings_exist, lambda o: environment(o, "planner", "MESHWRIGHT_LEASE_S", "soon")),
    (settings_exist, lambda o: named(o, "ConfigMap", "settings")["data"].update(MESHWRIGHT_COLOUR="red")),
    (agreed, lambda o: container(o, "install")["envFrom"].clear()),
    (agreed, lambda o: container(o, "planner").pop("envFrom")),
    (references, lambda o: pod(workloads(o)["planner"])["volumes"][0]["secret"].update(secretName="planer-tls")),
    (references, lambda o: container(o, "planner")["env"][0]["valueFrom"]["secretKeyRef"].update(name="store-url")),
    (references, lambda o: container(o, "planner")["envFrom"].append({"configMapRef": {"name": "limits"}})),
    (references, lambda o: container(o, "planner")["volumeMounts"].append({"name": "documents", "mountPath": "/d"})),
    (restricted, lambda o: pod(workloads(o)["store"])["securityContext"].pop("runAsNonRoot")),
    (restricted, lambda o: pod(workloads(o)["store"])["securityContext"].pop("seccompProfile")),
    (restricted, lambda o: pod(workloads(o)["planner"])["securityContext"].pop("runAsGroup")),
    (restricted, lambda o: pod(workloads(o)["install"]).pop("automountServiceAccountToken")),
    (restricted, lambda o: pod(workloads(o)["planner"]).update(hostNetwork=True)),
    (restricted, lambda o: pod(workloads(o)["planner"])["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    (restricted, lambda o: container(o, "gateway", "envoy")["securityContext"].update(readOnlyRootFilesystem=False)),
    (restricted, lambda o: container(o, "registry")["resources"].pop("limits")),
    (disruption, lambda o: budget(o, "planner", 0)),
    (disruption, lambda o: budget(o, "planner", 2)),
    (disruption, lambda o: o.remove(named(o, "PodDisruptionBudget", "gateway"))),
    (disruption, lambda o: named(o, "PodDisruptionBudget", "planner")["spec"].pop("unhealthyPodEvictionPolicy")),
    (movable, lambda o: workloads(o)["planner"]["spec"]["template"]["metadata"].pop("annotations")),
    (movable, lambda o: pod(workloads(o)["gateway"])["volumes"].append({"name": "more", "emptyDir": {}})),
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


@pytest.mark.parametrize("name", ["dev", "staging", "prod", "lab"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_overlay_follows_every_rule(overlays, name, rule):
    assert list(rule(overlays[name])) == []


def test_what_is_written_is_what_kubectl_renders_but_for_names_and_tags(tree):
    def known(objects):
        return {(one["kind"], one["metadata"]["name"]) for one in objects}

    assert known([one for name in ("base", "tools", "agents") for one in rendered(tree / name)]) == known(written())


def test_production_runs_what_the_delivery_workflow_names_by_digest(overlays):
    assert list(digests(overlays["prod"])) == []


def test_production_is_not_rendered_without_digests(tree):
    with pytest.raises(SetupError, match="overlays/prod/images"):
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


def test_an_overlay_of_your_own_takes_the_digests_of_production(tree):
    text = (REPO / "docs/kubernetes.md").read_text()
    (snippet,) = re.findall(r"   apiVersion: kustomize.*?(?=   ```)", text, re.DOTALL)
    folder = tree / "overlays/mine"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(textwrap.dedent(snippet))
    objects = rendered(folder)
    assert list(digests(objects)) == []
    assert set(workloads(objects)) == {"store", "install", "registry", "gateway", *BUNDLED}


def test_an_operators_command_gets_the_admins_address_on_stdin(tmp_path):
    text = (REPO / "docs/kubernetes.md").read_text()
    (function,) = re.findall(r"^admin\(\) \{.*?^\}$", text, re.DOTALL | re.MULTILINE)
    says = {
        "kubectl": 'case "$*" in *get*) echo "$URL";; *) while [ "$1" != -- ]; do shift; done; shift; exec "$@";; esac',
        "meshwright": 'echo "$MESHWRIGHT_STORE_ADMIN_URL" "$#" "$@"',
    }
    for name, does in says.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    url = "rediss://mw-admin:a%2Bb@store:6379/0?ssl_ca_certs=/certificates/ca.pem"
    done = subprocess.run(
        ["bash", "-c", f"{function}\nadmin store prune '--dry-run'"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{url} 3 store prune --dry-run\n"
