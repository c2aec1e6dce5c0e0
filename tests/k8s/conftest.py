"""The overlays as kubectl renders them."""

import shutil

import pytest
import yaml

from meshwright.agents.library.bundle import BUNDLED
from tests.k8s.objects import K8S, LAB, rendered

OVERLAYS = {name: f"overlays/{name}" for name in ("dev", "staging", "prod")} | {"lab": "../examples/lab/k8s"}
"""Where each is, from the folder k8s."""
DIGEST = "sha256:" + "0a" * 32


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """The folder k8s, with the digests that the delivery workflow writes beside prod."""
    folder = tmp_path_factory.mktemp("tree") / "k8s"
    shutil.copytree(K8S, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(LAB, folder / OVERLAYS["lab"])
    names = [f"meshwright/{name}" for name in ("registry", "gateway", *BUNDLED)]
    names += ["valkey/valkey", "envoyproxy/envoy", "envoyproxy/ratelimit"]
    images = [{"name": name, "newName": f"registry.example.org/{name}", "digest": DIGEST} for name in names]
    kinds = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
    (folder / "overlays/prod/images").mkdir()
    (folder / "overlays/prod/images/kustomization.yaml").write_text(yaml.safe_dump(kinds | {"images": images}))
    return folder


@pytest.fixture(scope="session")
def overlays(tree):
    """The objects of each overlay, by its name."""
    return {name: rendered(tree / place) for name, place in OVERLAYS.items()}
