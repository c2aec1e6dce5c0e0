"""The wheel: installs beside a package called `agents`, and brings all of its files."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from meshwright.cli.agent_new import project

REPO = Path(__file__).parents[1]
CHECK = """
import agents, pickle, meshwright
assert agents.MARK == "a stand-in", agents.__file__
assert not hasattr(meshwright, "__file__") or meshwright.__file__ is None
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
request = TaskRequest(prompt="x")
assert pickle.loads(pickle.dumps(request)) == request
import meshwright.agents, meshwright.registry, meshwright.core.server
from importlib.resources import files
assert (files("meshwright.gen") / "descriptors.binpb").is_file()
assert (files("meshwright.gen") / "comments.json").is_file()
assert (files("meshwright.gateway") / "openapi_examples.yaml").is_file()
LUA = ("edge.lua", "events.lua", "status.lua", "reasons.lua")
assert all((files("meshwright.gateway") / name).is_file() for name in LUA)
assert (files("meshwright.gateway") / "console" / "index.html").is_file()
assert (files("meshwright.agents") / "functions" / "journal.lua").is_file()
assert (files("meshwright.agents.library") / "planner" / "evals.jsonl").is_file()
assert (files("meshwright.cli") / "project" / "agent.py.tmpl").is_file()
assert (files("meshwright.cli.chaos") / "shim.c").is_file()
print(meshwright.agents.__file__)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make wheel` writes."""
    made = tmp_path_factory.mktemp("wheel")
    words = ["--no-print-directory", "-o", ".venv/.runtime", f"BIN={Path(sys.executable).parent}", f"TO={made}"]
    subprocess.run(["make", *words, "wheel"], cwd=REPO, check=True, timeout=100, stdout=subprocess.DEVNULL)
    return made


@pytest.fixture(scope="module")
def wheel(folder):
    (built,) = folder.glob("meshwright-*.whl")
    return built


@pytest.mark.parametrize("extra", ["", "[local]"])
def test_a_new_project_finds_its_meshwright_in_the_folder(folder, extra):
    told = tomllib.loads(project("price-desk")["pyproject.toml"])["project"]
    wanted = [*told["dependencies"], *told["optional-dependencies"]["dev"]]
    (ours,) = [one for one in wanted if one.startswith(f"meshwright{extra}>")]
    words = ["--isolated", "--disable-pip-version-check", "install", "--dry-run", "--ignore-installed", "--no-deps"]
    found = ["--no-index", "--find-links", folder, "--constraint", folder / "constraints.txt", ours]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *found], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Would install meshwright-" in done.stdout


def test_the_constraints_beside_the_wheel_are_the_pins_of_the_lock(folder):
    def pins(text):
        return re.findall(r"^[a-z0-9-]+==[^\s\\]+(?: ; [^\\\n]*[^\\\s])?", text, re.MULTILINE)

    text = (folder / "constraints.txt").read_text()
    assert pins(text) == pins((REPO / "requirements.lock").read_text()) != []
    assert "--hash" not in text
    assert "\\" not in text


def test_the_wheel_works_in_a_clean_environment_beside_a_package_called_agents(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # a pure wheel is its files
    (site / "agents").mkdir()
    (site / "agents/__init__.py").write_text('MARK = "a stand-in"\n')
    ours = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    dependencies = site / "dependencies"
    dependencies.mkdir()
    for entry in ours.iterdir():  # everything but our own editable install
        if "meshwright" not in entry.name and entry.name not in ("dependencies", "agents"):
            (dependencies / entry.name).symlink_to(entry)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    done = subprocess.run([python, "-I", "-c", CHECK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout


def test_the_wheel_has_no_init_in_the_namespace_and_nothing_outside_of_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert "meshwright/__init__.py" not in names
    assert {name.split("/")[0] for name in names} == {"meshwright"}
    assert not [name for name in names if "tests/" in name or name.endswith(".pyc")]


def test_the_locks_hold_hashes_and_no_index_address():
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (REPO / name).read_text()
        assert "://" not in text
        pinned = [line for line in text.splitlines() if "==" in line and not line.strip().startswith("#")]
        assert pinned
        assert text.count("--hash=sha256:") >= len(pinned)
