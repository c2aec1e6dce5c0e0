"""A host of tools beside production, put together as docs/kubernetes.md says."""

import re

import pytest
import yaml

from tests.k8s.objects import REPO, named, rendered, workloads
from tests.k8s.rules import RULES


@pytest.fixture(scope="module")
def objects(tree):
    """Production with the overlay of the document beside it."""
    told = (REPO / "docs/kubernetes.md").read_text()
    snippet = re.search(r"```\n(resources:\n  - ../../tools\n.*?)```", told, re.DOTALL)
    assert snippet
    overlay = yaml.safe_load(snippet[1])
    overlay["resources"].insert(0, "../../base")
    overlay["components"][:0] = [
        "../../components/mtls",
        "../../components/network-policies",
        "../../components/external-secrets",
    ]
    kinds = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "meshwright"}
    overlay["resources"].append("../../agents")
    folder = tree / "overlays/with-tools"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kinds | overlay))
    return rendered(folder)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_follows_every_rule(objects, rule):
    assert [wrong for wrong in rule(objects) if "ratelimit" not in wrong] == []


def test_the_image_is_the_one_that_the_overlay_names(objects):
    (container,) = workloads(objects)["tools"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.org/mesh/tools:1.0.0"


def test_its_address_of_the_store_comes_out_of_the_vault(objects):
    keys = {entry["secretKey"] for entry in named(objects, "ExternalSecret", "store-urls")["spec"]["data"]}
    assert keys == {"admin", "agent", "gateway", "registry", "tool"}


def test_its_policies_are_there(objects):
    assert named(objects, "NetworkPolicy", "tools")["metadata"]["namespace"] == "meshwright"
