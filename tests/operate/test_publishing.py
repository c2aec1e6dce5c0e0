"""Images on their way to production: which ones a change is part of, what is pushed, and what is written down.

No engine builds them here: a program called docker notes what it is asked, and keeps a registry in a folder.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from meshwright.agents.library.bundle import BUNDLED
from tests.k8s.objects import K8S, rendered
from tests.k8s.rules import digests
from tests.operate.delivering import REPO, images

BASE = f"python:3.11-slim-bookworm@sha256:{'0' * 64}"
PREFIX = "registry.example:5000/mesh"
ALL = {image.name: image for image in images.images()}
DOCKER = """#!{python}
import hashlib, pathlib, sys
here = pathlib.Path({folder!r})
words = sys.argv[1:]
(here / "asked").open("a").write(" ".join(words) + "\\n")
def place(name): return here / "registry" / name.replace("/", "+")
if words[:3] == ["buildx", "imagetools", "inspect"]:
    if (here / "away").exists():
        sys.exit("ERROR: 401 Unauthorized")
    if not place(words[3]).exists():
        sys.exit("ERROR: " + words[3] + ": not found")
    digest = "sha256:" + hashlib.sha256(words[3].encode()).hexdigest()
    of_manifest = words[5].startswith("{{{{.Manifest")  # as buildx has it: that is a table for people
    print(f"Name:      {{words[3]}}\\nDigest:    {{digest}}" if of_manifest else f'"{{digest}}"')
elif words[0] == "push":
    place(words[1]).touch()
elif words[0] == "build" and (here / "broken").exists():
    sys.exit(7)
"""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that is a registry; what docker was asked stands in `asked`."""
    (tmp_path / "registry").mkdir()
    (tmp_path / "asked").touch()
    (tmp_path / "docker").write_text(DOCKER.format(python=sys.executable, folder=str(tmp_path)))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    return tmp_path


def asked(registry):
    return [line.split()[0] for line in (registry / "asked").read_text().splitlines()]


def digest_of(name):
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def told(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["images.py", *words])
    return images.main()


def test_an_image_is_built_behind_its_runtime_pushed_and_told_by_its_digest(registry, monkeypatch):
    assert told(monkeypatch, "publish", "planner", "--base", BASE, "--prefix", PREFIX) == 0
    names = [images.tag(ALL[name], BASE, PREFIX) for name in ("runtime", "planner")]
    lines = (registry / "asked").read_text().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("push")] == names
    assert (registry / "output").read_text().splitlines()[-1] == f"digest={digest_of(names[-1])}"


def test_what_the_registry_has_is_neither_built_nor_pushed(registry, monkeypatch):
    for _ in range(2):
        assert told(monkeypatch, "publish", "planner", "--base", BASE, "--prefix", PREFIX) == 0
    assert (asked(registry).count("build"), asked(registry).count("push")) == (2, 2)


def test_a_build_that_fails_is_not_pushed(registry, monkeypatch):
    (registry / "broken").touch()
    assert told(monkeypatch, "publish", "planner", "--base", BASE, "--prefix", PREFIX) == 7
    assert "push" not in asked(registry)


@pytest.mark.parametrize(
    ("base", "prefix", "away", "said"),
    [
        ("python:3.11", PREFIX, False, "pinned by digest"),
        (BASE, "meshwright", False, "in which registry"),
        (BASE, PREFIX, True, "make login"),
    ],
)
def test_what_is_wrong_is_one_line(registry, monkeypatch, capsys, base, prefix, away, said):
    if away:
        (registry / "away").touch()
    assert told(monkeypatch, "publish", "planner", "--base", base, "--prefix", prefix) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_docker_nothing_is_published(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told(monkeypatch, "publish", "planner", "--base", BASE, "--prefix", PREFIX) == 2
    assert "docker is not installed" in capsys.readouterr().err


def test_a_lock_names_everything_by_digest_so_that_production_is_rendered(registry, monkeypatch, tmp_path):
    tree = tmp_path / "k8s"
    shutil.copytree(K8S, tree, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(images, "LOCK", tree / "overlays/prod/images/kustomization.yaml")
    assert told(monkeypatch, "publish", "--base", BASE, "--prefix", PREFIX) == 0
    for name, version in images.of_others():
        (registry / "registry" / f"{name}:{version}".replace("/", "+")).touch()
    assert told(monkeypatch, "lock", "--base", BASE, "--prefix", PREFIX) == 0
    listed = {one["name"]: one for one in yaml.safe_load(images.LOCK.read_text())["images"]}
    assert {"valkey/valkey", "envoyproxy/envoy", "envoyproxy/ratelimit"} < set(listed)
    for name in ("registry", "gateway", *BUNDLED):
        assert listed[f"meshwright/{name}"] == {
            "name": f"meshwright/{name}",
            "newName": f"{PREFIX}/{name}",
            "digest": digest_of(images.tag(ALL[name], BASE, PREFIX)),
        }
    assert list(digests(rendered(tree / "overlays/prod"))) == []


def test_a_lock_is_not_written_while_an_image_is_in_no_registry(registry, monkeypatch, capsys):
    monkeypatch.setattr(images, "LOCK", registry / "images/kustomization.yaml")
    assert told(monkeypatch, "lock", "--base", BASE, "--prefix", PREFIX) == 2
    assert "in no registry" in capsys.readouterr().err
    assert not images.LOCK.exists()


class TestAffected:
    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "mesh"
        for part in ("gen", "core", "registry", "agents", "gateway", "cli"):
            shutil.copytree(REPO / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for words in (
            ["init", "--quiet"],
            ["add", "."],
            ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x"],
        ):
            subprocess.run(["git", "-C", root, *words], check=True, timeout=60)
        return root

    @pytest.mark.parametrize(
        ("file", "names"),
        [
            ("agents/meshwright/agents/library/planner/prompts.py", ["planner"]),
            ("core/meshwright/core/errors.py", list(ALL)),
            ("gateway/Dockerfile", ["gateway"]),
            ("agents/meshwright/agents/library/planner/evals.jsonl", []),
        ],
    )
    def test_a_change_is_part_of_what_holds_it(self, root, file, names):
        assert images.affected("HEAD", root) == []
        (root / file).write_text((root / file).read_text() + "\n")
        assert images.affected("HEAD", root) == names

    def test_an_agent_that_is_new_is_affected(self, root):
        folder = root / images.LIBRARY / "teller"
        shutil.copytree(root / images.LIBRARY / "planner", folder)
        assert images.affected("HEAD", root) == ["teller"]

    @pytest.mark.parametrize("revision", ["nowhere", "", "--output=/tmp/x"])
    def test_a_revision_is_one(self, root, revision):
        with pytest.raises(ValueError, match="AGAINST="):
            images.affected(revision, root)


@pytest.mark.parametrize("change", ["nothing", "tool", "tool and contract"])
def test_a_contract_that_is_changed_with_its_tool_is_noticed(tmp_path, change):
    root = tmp_path / "mesh"
    subprocess.run(["git", "clone", "--quiet", "--shared", REPO, root], check=True, timeout=60)
    shutil.copy(REPO / "Makefile", root / "Makefile")
    tool, contract = root / "examples/accountant.py", next((root / "contracts/add_vat").iterdir())
    if change != "nothing":
        tool.write_text(tool.read_text().replace("net: ", "gross: ").replace("net *", "gross *"))
    if change == "tool and contract":
        contract.write_text(contract.read_text().replace('"net"', '"gross"').replace('"Net"', '"Gross"'))
        check = [sys.executable, "-m", "meshwright.cli.main", "tool", "check", "contracts", str(tool)]
        assert subprocess.run(check, cwd=root, capture_output=True, timeout=50, check=False).returncode == 0
    words = ["make", "-o", ".venv/.dev", f"BIN={Path(sys.executable).parent}", "AGAINST=HEAD", "compatible"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode == 0) is (change == "nothing"), done.stdout + done.stderr
    assert bool(re.search(r"add_vat@1\.0\.0 +changed", done.stdout)) is (change != "nothing")
