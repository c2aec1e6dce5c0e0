"""What base and the bundled agents say: one template, certificates, keys, a store as production wants it."""

import runpy
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from k8s.rehearsal.figures import kib
from meshwright.agents.library.bundle import BUNDLED
from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.production import of_settings
from meshwright.core.errors import SetupError
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY
from meshwright.gateway.settings import GatewaySettings
from tests.k8s.objects import (
    K8S,
    REPO,
    containers,
    environment,
    named,
    pod,
    process_settings,
    settings_of,
    workloads,
    written,
)

OBJECTS = written()
WAITS_S = 600
"""Seconds that secrets may take until those who wait for what is made with them start again."""


def folders():
    return sorted(path.parent for path in K8S.rglob("kustomization.yaml"))


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: str(folder.relative_to(K8S)))
def test_every_file_is_named(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    told = {*kustomization.get("resources", ()), *(patch.get("path") for patch in kustomization.get("patches", ()))}
    told |= {name for made in kustomization.get("configMapGenerator", ()) for name in made["files"]}
    rules = {"prometheus-rules.yaml"}  # the same as rules.yaml, for promtool
    assert {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"} - rules <= told


@pytest.mark.parametrize("document", OBJECTS, ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_every_manifest_is_valid(document):
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_bundled_agents_are_what_the_template_says():
    """`make gen` writes them anew."""
    wanted = runpy.run_path(str(K8S / "generate.py"))["texts"]()
    there = {path for path in (K8S / "agents").rglob("*") if path.is_file() and path.parent != K8S / "agents"}
    assert there | {K8S / "components/rollouts/analysis.yaml"} == set(wanted)
    assert {path: path.read_text() for path in wanted} == wanted


def test_a_folder_of_the_library_that_is_in_no_bundle_is_told(tmp_path):
    """`make gen` would write nothing for it."""
    check = runpy.run_path(str(K8S / "generate.py"))["check"]
    check()
    for name in (*BUNDLED, "documents", "pricedesk"):
        (tmp_path / name).mkdir()
        if name != "documents":
            (tmp_path / name / "agent.py").touch()
    with pytest.raises(SetupError, match=r"pricedesk is no bundled agent: name it in BUNDLED, in \S+/bundle.py"):
        check(tmp_path)


def test_modules_that_are_run_exist():
    import importlib.util

    for _, container in containers(OBJECTS):
        command = container.get("command", [])
        if command[:2] == ["python", "-m"]:
            has_main = command[2] == "meshwright.cli.main" or importlib.util.find_spec(f"{command[2]}.__main__")
            assert has_main, command
            for spec in command[3:] if command[2] == "meshwright.agents" else ():
                assert importlib.util.find_spec(spec.partition(":")[0]), spec


def test_images_of_ours_are_those_that_are_built():
    ours = {one["image"].removeprefix("meshwright/") for _, one in containers(OBJECTS) if "meshwright/" in one["image"]}
    library = REPO / "agents/meshwright/agents/library"
    assert ours == {"registry", "gateway", "tools", *BUNDLED}
    assert (REPO / "registry/tool.Dockerfile").is_file()
    for name in ours - {"tools"}:
        folder = library / name if name in BUNDLED else REPO / name
        assert (folder / "Dockerfile").is_file(), name


def test_an_envoy_that_waits_for_its_configuration_is_not_killed_for_it():
    """The gateway's process writes it once the store has its functions, and ends until then."""
    _, envoy = pod(workloads(OBJECTS)["gateway"])["containers"]
    started = envoy["startupProbe"]
    assert started["periodSeconds"] * started["failureThreshold"] >= WAITS_S


def test_the_job_that_installs_waits_for_its_secrets_as_long_as_everybody():
    """A deadline counts from when the job is made, and what is past it is not tried again."""
    assert "activeDeadlineSeconds" not in workloads(OBJECTS)["install"]["spec"]


def test_an_envoy_that_waits_ends_when_it_is_told_to():
    """The first process of a container does not hear SIGTERM without a trap."""
    _, envoy = pod(workloads(OBJECTS)["gateway"])["containers"]
    assert envoy["command"][-1].startswith("trap exit TERM; until ")


def test_an_envoy_has_as_many_workers_as_it_is_told():
    _, envoy = pod(workloads(OBJECTS)["gateway"])["containers"]
    assert "--concurrency 2 " in envoy["command"][-1]


def test_what_the_edge_writes_is_bounded():
    gateway = workloads(OBJECTS)["gateway"]
    process = next(one for one in pod(gateway)["containers"] if one["name"] == "gateway")
    assert process_settings(OBJECTS, process).access_log == "stdout"
    assert [one["emptyDir"].get("sizeLimit") for one in pod(gateway)["volumes"] if "emptyDir" in one] == ["64Mi"]


def mounted(name, container):
    """Returns the volumes that a container mounts, by where."""
    volumes = {volume["name"]: volume for volume in pod(workloads(OBJECTS)[name]).get("volumes", ())}
    return {mount["mountPath"]: volumes.get(mount["name"]) for mount in container.get("volumeMounts", ())}


def processes():
    """Returns the containers that are processes of the mesh, by workload."""
    return {
        workload["metadata"]["name"]: container
        for workload, container in containers(OBJECTS)
        if container.get("envFrom") and settings_of(container)
    }


def test_nothing_that_production_needs_is_missing_from_the_settings(monkeypatch):
    for variable, value in environment(OBJECTS, processes()["gateway"]).items():
        monkeypatch.setenv(variable, value)
    assert list(of_settings(GatewaySettings.load())) == []


@pytest.mark.parametrize("name", ["registry", "gateway", "tools", *BUNDLED])
def test_every_process_has_a_certificate_of_its_own_and_its_roles_user_of_the_store(name):
    container = processes()[name]
    secret = mounted(name, container)[process_settings(OBJECTS, container).tls_dir]["secret"]
    assert secret["secretName"] == f"{name}-tls"
    assert {item["path"] for item in secret["items"]} == {CERTIFICATE, KEY, AUTHORITY}
    (url,) = [e["valueFrom"]["secretKeyRef"] for e in container["env"] if e["name"] == "MESHWRIGHT_STORE_URL"]
    assert url == {"name": "store-urls", "key": {"tools": "tool"}.get(name, "agent" if name in BUNDLED else name)}


def test_whoever_handles_content_has_the_keys_and_nobody_else():
    for name, container in processes().items():
        path = environment(OBJECTS, container).get("MESHWRIGHT_CONTENT_KEYS_FILE")
        assert bool(path) == (name in {"tools", *BUNDLED}), name
        if path:
            assert mounted(name, container)[str(Path(path).parent)]["secret"]["secretName"] == "content-keys"


def test_envoy_and_the_gateway_find_certificates_at_the_same_places():
    gateway, envoy = pod(workloads(OBJECTS)["gateway"])["containers"]
    for variable in ("MESHWRIGHT_ENVOY_TLS_DIR", "MESHWRIGHT_EDGE_TLS_DIR", "MESHWRIGHT_FOLDER"):
        place = environment(OBJECTS, gateway)[variable]
        assert mounted("gateway", gateway)[place] == mounted("gateway", envoy)[place] != None  # noqa: E711 - one chain


def test_every_secret_is_read_by_its_group_alone():
    for name, workload in workloads(OBJECTS).items():
        for volume in pod(workload).get("volumes", ()):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, (name, volume)
                security = pod(workload)["securityContext"]
                assert security["fsGroup"] == security["runAsUser"], name


def test_every_secret_is_explained():
    told = (REPO / "docs/production.md").read_text()
    for workload in workloads(OBJECTS).values():
        for volume in pod(workload).get("volumes", ()):
            assert volume.get("secret", {}).get("secretName", "") in told
    assert "`store-urls`" in told


def test_the_store_keeps_its_address_where_its_pod_is_moved():
    """A headless service is the pod's address, which the cluster's DNS still tells half a minute after the move."""
    assert "clusterIP" not in named(OBJECTS, "Service", "store")["spec"]


def test_the_store_is_as_production_wants_it():
    (valkey,) = pod(workloads(OBJECTS)["store"])["containers"]
    args = valkey["args"][1:]
    told = dict(zip(args[::2], args[1::2], strict=True))
    assert (told["--appendfsync"], told["--maxmemory-policy"], told["--port"]) == ("always", "noeviction", "0")
    assert {"--maxmemory", "--aclfile", "--tls-port", "--tls-cert-file"} <= told.keys()
    (claim,) = workloads(OBJECTS)["store"]["spec"]["volumeClaimTemplates"]
    assert [mount for mount in valkey["volumeMounts"] if mount["name"] == claim["metadata"]["name"]]
    assert told["--dir"] == "/data"


def test_the_store_is_not_the_first_to_go_where_memory_is_short():
    """It asks for what it may hold, and has room for the copy that rewrites its log."""
    (valkey,) = pod(workloads(OBJECTS)["store"])["containers"]
    most = valkey["args"][valkey["args"].index("--maxmemory") + 1]
    assert most.endswith("mb")
    held = int(most.removesuffix("mb")) * 1024
    memory = {word: kib(told["memory"]) for word, told in valkey["resources"].items()}
    assert memory["requests"] > held
    assert memory["limits"] >= 2 * held


def test_no_probe_needs_a_certificate():
    for _, container in containers(OBJECTS):
        for word in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(word, {})
            if "grpc" in probe:
                assert probe["grpc"]["port"] == process_settings(OBJECTS, container).health_port


def test_the_edge_listens_where_its_service_leads():
    gateway, envoy = pod(workloads(OBJECTS)["gateway"])["containers"]
    listening = process_settings(OBJECTS, gateway).edge_port
    assert [port["containerPort"] for port in envoy["ports"] if port["name"] == "https"] == [listening]
    assert [port["targetPort"] for port in named(OBJECTS, "Service", "gateway")["spec"]["ports"]] == ["https"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Tells what the mesh's own development authority writes into a certificate: URIs and DNS names."""
    from cryptography import x509

    authority = Authority.make(tmp_path_factory.mktemp("authority") / "certs")

    def of(role, name):
        wanted = Wanted(role, name)
        authority.issue(wanted, 1)
        found = x509.load_pem_x509_certificate((authority.folder / wanted.folder / CERTIFICATE).read_bytes())
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            said.get_values_for_type(x509.UniformResourceIdentifier),
            {dns for dns in said.get_values_for_type(x509.DNSName) if dns != "localhost"},
        )

    return of


CERTIFICATES = [
    document
    for path in [K8S / "components/mtls/certificates.yaml", *(K8S / "agents").rglob("certificate.yaml")]
    for document in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("certificate", CERTIFICATES, ids=lambda one: one["metadata"]["name"])
def test_cert_manager_writes_what_the_mesh_reads(certificate, names):
    from meshwright.core.role import bearer_in

    spec, name = certificate["spec"], certificate["metadata"]["name"]
    if name in {"edge", "store"}:
        assert "uris" not in spec
        return
    role, bearer = bearer_in(spec["uris"])
    assert (str(role), bearer) == (("agent", name) if name in BUNDLED else ({"envoy": "edge"}.get(name, name), ""))
    uris, dns = names(role, bearer)
    assert (spec["uris"], set(spec["dnsNames"])) == (uris, dns)
    assert {"server auth", "client auth"} <= {*spec["usages"]}
