"""k8s/base: valid manifests that run the same processes."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from meshwright.agents.library.bundle import BUNDLED

BASE = Path(__file__).parents[1] / "k8s/base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())


def documents():
    return [
        document for name in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((BASE / name).read_text())
    ]


def workloads():
    return {
        document["metadata"]["name"]: document for document in documents() if "template" in document.get("spec", {})
    }


def containers():
    return [(name, c) for name, w in workloads().items() for c in w["spec"]["template"]["spec"]["containers"]]


def test_every_file_is_named():
    assert {path.name for path in BASE.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_every_manifest_is_valid(document):
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_all_processes_are_rendered():
    assert set(workloads()) == {"store", "registry", "gateway", *BUNDLED}
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    assert {container["image"] for _, container in containers()} == images


def test_selectors_find_their_pods():
    for name, workload in workloads().items():
        wanted = workload["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= workload["spec"]["template"]["metadata"]["labels"].items(), name
    for service in (document for document in documents() if document["kind"] == "Service"):
        workload = workloads()[service["metadata"]["name"]]
        pod = workload["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_setting_that_is_set_exists():
    from meshwright.agents.settings import AgentSettings
    from meshwright.gateway.settings import GatewaySettings

    known = {
        f"MESHWRIGHT_{name.upper()}" for settings in (AgentSettings, GatewaySettings) for name in settings.model_fields
    }
    named = {entry["name"] for _, container in containers() for entry in container.get("env", ())}
    named |= {key for document in documents() if document["kind"] == "ConfigMap" for key in document["data"]}
    assert named <= known


def test_containers_are_restricted_and_modules_exist():
    import importlib.util

    for name, container in containers():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"], name
        assert not security["allowPrivilegeEscalation"], name
        command = container.get("command", [])
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(f"{command[2]}.__main__"), command
            for spec in command[3:]:
                assert importlib.util.find_spec(spec.partition(":")[0]), spec


def test_drain_fits_into_the_grace_period():
    for name, workload in workloads().items():
        pod = workload["spec"]["template"]["spec"]
        for container in pod["containers"]:
            drain = {entry["name"]: entry.get("value") for entry in container.get("env", ())}.get("MESHWRIGHT_DRAIN_S")
            if drain:
                assert float(drain) + 10 < pod["terminationGracePeriodSeconds"], name
