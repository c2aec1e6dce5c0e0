"""`meshwright agent new`: the project that it writes passes its own tests, evals and checks; it writes over nothing."""

import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from meshwright.agents.library.bundle import BUNDLED
from meshwright.cli.agent_new import LONGEST, TAKEN, package_name, project
from meshwright.cli.main import app
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.ids import AGENT_ID, TOOL_NAME
from tests.k8s.objects import written
from tests.k8s.rules import RULES

ROOT = Path(__file__).parents[2]
PACKAGES = [str(ROOT / name) for name in ("gen", "core", "registry", "agents", "gateway", "cli")]
MESHWRIGHT = [sys.executable, "-m", "meshwright.cli.main"]


def run(*words):
    result = CliRunner().invoke(app, ["agent", "new", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("project") / "made for it"
    written = run("price-desk", "--folder", made)
    assert {str(path) for path in made.rglob("*") if path.is_file()} == set(written)
    return made


def done(folder, *command):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PACKAGES), "MYPYPATH": os.pathsep.join(PACKAGES)}
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.timeout(160)  # a test run inside of one
def test_its_tests_pass(folder):
    assert "2 passed" in done(folder, sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_its_promises_hold(folder):
    told = done(folder, *MESHWRIGHT, "eval", "price_desk")
    assert told.count("passed") == 2


def test_its_agent_loads_as_in_a_mesh(folder):
    load = "from meshwright.agents.agent import load; print(load('price_desk.agent:agent').name)"
    assert done(folder, sys.executable, "-c", load) == "price-desk\n"


def test_it_is_linted_and_formatted(folder):
    done(folder, sys.executable, "-m", "ruff", "check", ".")
    done(folder, sys.executable, "-m", "ruff", "format", "--check", ".")


@pytest.mark.timeout(160)  # the types of all that it imports are looked at anew
def test_its_types_hold(folder):
    options = ("--namespace-packages", "--explicit-package-bases", "--cache-dir", os.devnull)
    assert "no issues found in 6 source files" in done(folder, sys.executable, "-m", "mypy", *options)


def manifests(folder, below="k8s"):
    kustomization = yaml.safe_load((folder / below / "kustomization.yaml").read_text())
    names = {path.name for path in (folder / below).iterdir() if path.is_file()}
    assert names == {"kustomization.yaml", *kustomization["resources"]}
    return kustomization, [yaml.safe_load((folder / below / name).read_text()) for name in kustomization["resources"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_its_manifests_follow_the_rules_beside_the_mesh(folder, rule):
    """Of a mesh that makes no secret for it: its own component does."""
    _, documents = manifests(folder)
    _, certificate = manifests(folder, "k8s/mtls")
    assert list(rule(written() + documents + certificate)) == []


def test_its_manifests_are_valid_and_of_its_image(folder):
    kustomization, documents = manifests(folder)
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)
    assert {document["kind"] for document in documents} == {"Deployment", "Service", "PodDisruptionBudget"}
    (container,) = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [image["name"] for image in kustomization["images"]] == [container["image"]]
    assert container["command"][-1] == "price_desk.agent:agent"


@pytest.mark.parametrize("component", ["keda", "mtls", "rollout"])
def test_its_components_are_of_itself(folder, component):
    kustomization, documents = manifests(folder, f"k8s/{component}")
    assert kustomization["kind"] == "Component"
    assert [document["metadata"]["name"] for document in documents] == ["price-desk"]
    patches = kustomization.get("patches", ())
    changed = [patch.get("target") or yaml.safe_load(patch["patch"])["metadata"] for patch in patches]
    assert {one["name"] for one in changed} <= {"price-desk", "alerts"}


@pytest.mark.parametrize("kept", ["README.md", "price_desk/agent.py", "k8s/service.yaml"])
def test_nothing_is_written_over_and_no_file_half_written(tmp_path, kept):
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).write_text("mine")
    with pytest.raises(SetupError, match=f"{Path(kept).name} is there already"):
        run("price-desk", "--folder", tmp_path)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [Path(kept)]
    assert (tmp_path / kept).read_text() == "mine"


@pytest.mark.parametrize("name", ["Price", "a/b", "", "-a", "a-", "a_b", "x" * (LONGEST + 1)])
def test_a_name_that_is_none_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequestError, match="names no agent"):
        run("--", name)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_it_gets_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("price-desk")
    assert [path.name for path in tmp_path.iterdir()] == ["price-desk"]


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True) | st.sampled_from(
    ["x" * LONGEST, "class", "json"]
)


@settings(deadline=None)
@given(NAMES)
def test_whatever_the_name_the_files_are_whole(name):
    package = package_name(name)
    texts = project(name)
    assert package.isidentifier()
    assert package not in TAKEN
    assert TOOL_NAME.fullmatch(f"{package}.count_words")
    assert AGENT_ID.fullmatch(name)
    assert f"{package}/agent.py" in texts
    for path, text in texts.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert max(map(len, text.splitlines())) <= 120
        if path.endswith(".yaml"):
            assert yaml.safe_load(text)
        assert "$name" not in text
        assert "$package" not in text


def test_a_package_hides_no_other_module():
    assert [package_name(name) for name in ("json", "yaml", "class", "tests", "price-desk")] == [
        "json_agent",
        "yaml_agent",
        "class_agent",
        "tests_agent",
        "price_desk",
    ]


@pytest.mark.parametrize("name", BUNDLED)
def test_the_name_of_an_agent_that_ships_is_refused(name, tmp_path):
    with pytest.raises(InvalidRequestError, match=f"^an agent called {name} ships with Meshwright: give yours another"):
        run(name, "--folder", tmp_path)
    assert list(tmp_path.iterdir()) == []
