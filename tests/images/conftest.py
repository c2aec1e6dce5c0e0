"""Images as an engine builds them, and the mesh of the overlay `dev` in containers of them."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from k8s.rehearsal import secrets
from k8s.rehearsal.manifests import K8S, Manifests, name_of, rendered
from tests.images.podman import base, build, build_by_hand, build_others
from tests.images.pods import Network, Pod
from tests.k8s.objects import REPO

BEFORE = ("store", "install", "registry")
"""Others would end until these are there, and be started again."""
EDGE = "mesh.example.org"


@pytest.fixture(scope="session", autouse=True)
def _is_wanted():
    if not os.environ.get("TEST_IMAGES"):
        pytest.skip("images are built by `make test-images`, which installs podman: ten minutes")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project of somebody's own, `price-desk`."""
    folder = tmp_path_factory.mktemp("own")
    words = ["-m", "meshwright.cli.main", "agent", "new", "price-desk", "--folder", folder / "price-desk"]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return folder / "price-desk"


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The base of all images."""
    return base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def images(python, project, tmp_path_factory):
    """Names of all images, by what manifests call them."""
    folder = tmp_path_factory.mktemp("images")
    built = build(python)
    runtime = built["meshwright/runtime"]
    tools = folder / "tools"
    tools.mkdir()
    shutil.copy(REPO / "examples/tools.py", tools)
    built["meshwright/tools"] = build_by_hand("tools", runtime, REPO / "registry/tool.Dockerfile", tools)
    built["price-desk"] = build_by_hand("price-desk", runtime, project / "Dockerfile", project)
    build_by_hand("lab", runtime, REPO / "examples/lab/Dockerfile", REPO / "examples/lab")
    build_others(python, folder / "others")
    return built


@pytest.fixture(scope="session")
def manifests(project, tmp_path_factory):
    """The overlay `dev`, with a tool host and the project's agent."""
    folder = tmp_path_factory.mktemp("overlay")

    def place(path):
        return os.path.relpath(path, folder)

    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [place(path) for path in (K8S / "overlays/dev", K8S / "tools", project / "k8s")],
        "components": [place(path) for path in (K8S / "tools/mtls", project / "k8s/mtls")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return Manifests(rendered(folder))


def without_tls(store):
    """Takes TLS off the store: the Valkey of the package has none."""
    (container,) = store["spec"]["template"]["spec"]["containers"]
    program, *words = container["args"]
    told = dict(zip(words[::2], words[1::2], strict=True))
    told = {name: value for name, value in told.items() if not name.startswith("--tls")} | {"--port": "6379"}
    container["args"] = [program, *(word for pair in told.items() for word in pair)]


class Mesh:
    """All pods of the manifests, one of each."""

    def __init__(self, pods, network, authority):
        self.pods, self.network, self.authority = pods, network, authority

    def start(self):
        """Starts all pods, and waits until they are ready."""
        for name in BEFORE:
            self.pods[name].start()
            self.pods[name].wait()
        others = [pod for name, pod in self.pods.items() if name not in BEFORE]
        for pod in others:
            pod.start()
        for pod in others:
            pod.wait()

    def remove(self):
        """Ends all pods by force."""
        for pod in reversed(self.pods.values()):
            pod.remove()


@pytest.fixture(scope="session")
def mesh(images, manifests, tmp_path_factory):
    """A running mesh of containers."""
    folder = tmp_path_factory.mktemp("mesh")
    without_tls(manifests.named("StatefulSet", "store"))
    found = {name_of(one): one for one in manifests.of_kind("StatefulSet", "Job", "Deployment")}
    with contextlib.ExitStack() as ends:
        network = Network()
        ends.callback(network.remove)
        network.alias(EDGE, "gateway")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(secrets, "STORE_URL", "redis://{user}:{password}@store:6379/0")
            made = secrets.Secrets(folder / "secrets", manifests, network)
        pods = {
            name: Pod(found[name], folder / name, network, manifests, made, images)
            for name in dict.fromkeys((*BEFORE, *found))
        }
        running = Mesh(pods, network, made.public_authority)
        ends.callback(running.remove)
        running.start()
        yield running
