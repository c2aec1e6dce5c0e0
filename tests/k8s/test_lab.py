"""The lab's manifests: from the template of all agents, with the lab's limits, and a job that can reach the edge."""

import copy
import runpy
from urllib.parse import urlsplit

import pytest

from meshwright.core.known_scope import opens_methods
from tests.k8s.objects import (
    K8S,
    LAB,
    containers,
    named,
    own_containers,
    pod,
    process_settings,
    workloads,
)
from tests.k8s.rules import references, restricted

FOLDER = LAB / "coordinator"


@pytest.fixture(scope="module")
def lab(overlays):
    return overlays["lab"]


@pytest.fixture
def job(lab):
    return workloads(copy.deepcopy(lab))["lab"]


def words(job):
    """Returns what the job's containers are told to run, by name."""
    return {container["name"]: container["command"][-1].split() for container in own_containers(job)}


def after(command, word):
    return command[command.index(word) + 1]


def test_the_coordinator_is_what_the_template_says():
    """`make gen` writes it anew."""
    wanted = runpy.run_path(str(K8S / "generate.py"))["lab_texts"]()
    assert {path: path.read_text() for path in FOLDER.rglob("*") if path.is_file()} == wanted


def test_the_gateway_has_the_limits_that_the_lab_has_on_one_machine(lab):
    told = named(lab, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    settings = process_settings(lab, told)
    assert (settings.limit_address, settings.limit_burst_s) == (5, 4)
    assert settings.auth == "keys"


def test_the_job_calls_the_edge_by_a_name_that_it_answers_to(lab, job):
    url = urlsplit(after(words(job)["check"], "--url"))
    service = named(lab, "Service", url.hostname)
    assert url.scheme == service["spec"]["ports"][0]["name"] == "https"
    gateway = named(lab, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    certificate = named(lab, "Certificate", "edge")["spec"]
    assert url.hostname in process_settings(lab, gateway).allowed_hosts.split()
    assert url.hostname in certificate["dnsNames"]
    (authority,) = [one["secret"] for one in pod(job)["volumes"] if one["name"] == "edge-authority"]
    assert authority["secretName"] == certificate["secretName"]
    named(lab, certificate["issuerRef"]["kind"], certificate["issuerRef"]["name"])  # is there


def test_the_jobs_key_opens_methods_alone_and_ends_by_itself(job):
    command = words(job)["key"]
    assert all(opens_methods(scope) for scope in after(command, "--scopes").split(","))
    assert after(command, "--expires") == "1h"


def test_what_does_not_hold_ends_the_job_and_is_not_tried_again(job):
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    codes = {"containerName": "check", "operator": "In", "values": [1]}
    assert (rule["action"], rule["onExitCodes"]) == ("FailJob", codes)
    assert pod(job)["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (restricted, lambda first: first["securityContext"].update(readOnlyRootFilesystem=False)),
        (restricted, lambda first: first["resources"].pop("limits")),
        (references, lambda first: first["env"][0]["valueFrom"]["secretKeyRef"].update(name="store-url")),
        (references, lambda first: first["volumeMounts"].append({"name": "keys", "mountPath": "/keys"})),
    ],
)
def test_rules_hold_for_what_runs_before_a_pods_containers(lab, rule, broken):
    objects = copy.deepcopy(lab)
    broken(pod(workloads(objects)["lab"])["initContainers"][0])
    assert list(rule(objects))


def test_a_store_that_is_not_there_yet_costs_the_lab_no_pod(lab):
    """`kubectl logs job/lab` shows the first pod of a job, not the one that has come through."""
    (first,) = pod(workloads(lab)["lab"])["initContainers"]
    assert first["command"][-1].startswith("trap exit TERM; until ")


def test_images_of_the_lab_are_those_that_are_built(lab):
    ours = {one["image"].partition(":")[0] for _, one in containers(lab) if one["image"].startswith("meshwright/")}
    assert "meshwright/lab" in ours
    assert (LAB.parent / "Dockerfile").is_file()
