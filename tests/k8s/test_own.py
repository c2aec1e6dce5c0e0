"""A project of `agent new` beside the mesh: as its README puts them together, and what is said of less than that."""

import re
import shutil

import pytest
import yaml

from meshwright.cli.agent_new import project
from meshwright.core.errors import SetupError
from tests.k8s.objects import named, rendered
from tests.k8s.own import main, problems

NAME = "price-desk"


@pytest.fixture(scope="module")
def beside(tree, tmp_path_factory):
    """A folder with the mesh's manifests and a project's."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copytree(tree, folder / "meshwright/k8s")
    for path, text in project(NAME).items():
        place = folder / NAME / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def as_it_is(kustomization):
    """Changes nothing."""


@pytest.fixture
def overlay(beside):
    """Writes the kustomization that the README shows, changed by a function, and returns its folder."""

    def write(change=as_it_is):
        (text,) = re.findall(
            r"```\n(apiVersion: kustomize.*?)```", (beside / NAME / "README.md").read_text(), re.DOTALL
        )
        kustomization = yaml.safe_load(text)
        change(kustomization)
        (beside / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return beside

    return write


def on_production(kustomization):
    """Its rollouts are there already."""
    kustomization["resources"][0] = "meshwright/k8s/overlays/prod"
    kustomization["components"].remove("meshwright/k8s/components/rollouts")


@pytest.mark.parametrize("change", [as_it_is, on_production], ids=["staging", "prod"])
def test_what_the_readme_of_a_project_shows_follows_every_rule(overlay, change):
    objects = rendered(overlay(change))
    assert list(problems(objects)) == []
    assert named(objects, "Deployment", NAME)["spec"]["replicas"] == 0
    assert named(objects, "Rollout", NAME)["spec"]["workloadRef"]["name"] == NAME
    assert named(objects, "ScaledObject", NAME)["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    namespace = named(objects, "Rollout", NAME)["metadata"]["namespace"]
    assert named(objects, "AnalysisTemplate", "alerts")["metadata"]["namespace"] == namespace


@pytest.mark.parametrize(
    ("gone", "missing"),
    [(f"{NAME}/k8s/keda", "ScaledObject"), ("meshwright/k8s/components/rollouts", "AnalysisTemplate")],
)
def test_a_rollout_is_not_rendered_without_what_it_needs(overlay, gone, missing):
    folder = overlay(lambda kustomization: kustomization["components"].remove(gone))
    with pytest.raises(SetupError, match=f"no matches for Id {missing}"):
        rendered(folder)


def test_what_is_wrong_with_an_overlay_is_told_a_line_each(overlay, capsys):
    folder = overlay()
    assert main(folder) == 0
    assert capsys.readouterr() == ("", f"{folder}: follows every rule\n")
    wrong = [
        {"target": {"kind": "Deployment", "name": NAME}, "patch": "- {op: add, path: /spec/replicas, value: 2}"},
        {"target": {"kind": "Rollout", "name": NAME}, "patch": "- {op: add, path: /spec/colour, value: red}"},
        {"target": {"kind": "Service", "name": NAME}, "patch": "- {op: add, path: /spec/colour, value: red}"},
    ]
    assert main(overlay(lambda kustomization: kustomization.update(patches=wrong))) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert f"{NAME} runs pods beside its rollout's" in said
    for kind in ("Rollout", "Service"):
        assert any(line.startswith(f"{kind} {NAME}: ") and "colour" in line for line in said), said


def test_a_project_alone_is_told_that_there_is_no_mesh(beside, capsys):
    assert main(beside / NAME / "k8s") == 1
    assert capsys.readouterr().out.startswith("no mesh is in it: name Meshwright's k8s/base")


def test_a_folder_without_a_kustomization_is_told_in_kubectls_words(tmp_path, capsys):
    assert main(tmp_path) == 2
    assert "unable to find" in capsys.readouterr().err


def test_rules_that_cannot_be_told_are_no_stack_trace(overlay):
    objects = rendered(overlay())
    del named(objects, "Deployment", NAME)["spec"]["template"]["spec"]
    assert any("cannot be told" in line for line in problems(objects))
