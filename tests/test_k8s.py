"""k8s/base: valid manifests that run the same processes."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from meshwright.agents.library.bundle import BUNDLED
from meshwright.agents.settings import AgentSettings
from meshwright.cli.production import of_settings
from meshwright.cli.settings import CliSettings
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY
from meshwright.gateway.settings import GatewaySettings

REPO = Path(__file__).parents[1]
BASE = REPO / "k8s/base"
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
    assert set(workloads()) == {"store", "install", "registry", "gateway", *BUNDLED}
    images = {image["name"] for image in KUSTOMIZATION["images"]}
    assert {container["image"] for _, container in containers()} == images


def test_selectors_find_their_pods():
    for name, workload in workloads().items():
        wanted = workload["spec"].get("selector", {}).get("matchLabels", {})
        assert wanted.items() <= workload["spec"]["template"]["metadata"]["labels"].items(), name
    for service in (document for document in documents() if document["kind"] == "Service"):
        workload = workloads()[service["metadata"]["name"]]
        pod = workload["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_setting_that_is_set_exists():
    kinds = (AgentSettings, GatewaySettings, CliSettings)
    known = {f"MESHWRIGHT_{name.upper()}" for settings in kinds for name in settings.model_fields}
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


def environment(container):
    """Returns what a container is told in plain words, by variable."""
    (settings,) = [document["data"] for document in documents() if document["kind"] == "ConfigMap"]
    own = {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}
    return (settings if container.get("envFrom") else {}) | own


def mounted(name, container):
    """Returns the volumes that a container mounts, by where."""
    volumes = {volume["name"]: volume for volume in workloads()[name]["spec"]["template"]["spec"].get("volumes", ())}
    return {mount["mountPath"]: volumes.get(mount["name"]) for mount in container.get("volumeMounts", ())}


def processes():
    """Returns the containers that are processes of the mesh, by workload."""
    return {name: c for name, c in containers() if c.get("envFrom")}


def test_nothing_that_production_needs_is_missing_from_the_settings(monkeypatch):
    for variable, value in environment(processes()["gateway"]).items():
        monkeypatch.setenv(variable, value)
    assert list(of_settings(GatewaySettings.load())) == []


@pytest.mark.parametrize("name", ["registry", "gateway", *BUNDLED])
def test_every_process_has_a_certificate_of_its_own_and_its_roles_user_of_the_store(name):
    container = processes()[name]
    secret = mounted(name, container)[environment(container)["MESHWRIGHT_TLS_DIR"]]["secret"]
    assert secret["secretName"] == f"{name}-tls"
    assert {item["path"] for item in secret["items"]} == {CERTIFICATE, KEY, AUTHORITY}
    (url,) = [e["valueFrom"]["secretKeyRef"] for e in container["env"] if e["name"] == "MESHWRIGHT_STORE_URL"]
    assert url == {"name": "store-urls", "key": "agent" if name in BUNDLED else name}


def test_whoever_handles_content_has_the_keys_and_nobody_else():
    for name, container in processes().items():
        path = environment(container).get("MESHWRIGHT_CONTENT_KEYS_FILE")
        assert bool(path) == (name in BUNDLED), name
        if path:
            assert mounted(name, container)[str(Path(path).parent)]["secret"]["secretName"] == "content-keys"


def test_envoy_and_the_gateway_find_certificates_at_the_same_places():
    gateway, envoy = [container for name, container in containers() if name == "gateway"]
    for variable in ("MESHWRIGHT_ENVOY_TLS_DIR", "MESHWRIGHT_EDGE_TLS_DIR", "MESHWRIGHT_FOLDER"):
        place = environment(gateway)[variable]
        assert mounted("gateway", gateway)[place] == mounted("gateway", envoy)[place] != None  # noqa: E711 - one chain


def test_every_secret_is_read_by_its_group_alone():
    for name, workload in workloads().items():
        pod = workload["spec"]["template"]["spec"]
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, (name, volume)
                assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"], name


def test_every_secret_is_explained():
    told = (REPO / "docs/production.md").read_text()
    for workload in workloads().values():
        pod = workload["spec"]["template"]["spec"]
        for volume in pod.get("volumes", ()):
            assert volume.get("secret", {}).get("secretName", "") in told
    assert "`store-urls`" in told


def test_the_store_is_as_production_wants_it():
    ((_, valkey),) = [(name, container) for name, container in containers() if name == "store"]
    args = valkey["args"][1:]
    told = dict(zip(args[::2], args[1::2], strict=True))
    assert (told["--appendfsync"], told["--maxmemory-policy"], told["--port"]) == ("always", "noeviction", "0")
    assert {"--maxmemory", "--aclfile", "--tls-port", "--tls-cert-file"} <= told.keys()


def test_no_probe_needs_a_certificate():
    for name, container in containers():
        for probe in ("readinessProbe", "livenessProbe"):
            assert set(container.get(probe, {})) & {"grpc", "httpGet"} == set(), name
