"""The short rehearsal: the rendered topology as processes, rolled and killed under load."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from k8s.rehearsal.manifests import K8S, rendered, write_tree
from tests.k8s.objects import REPO, workloads
from tests.k8s.rules import RULES
from tests.k8s.toys import until

PHASES = ["steady", "roll helper", "kill trader", "kill store"]
CONTAINERS = {
    *("gateway/gateway", "gateway/envoy", "helper/agent", "registry/registry"),
    *("tools/tools", "trader/agent", "store/valkey", "install/install"),
}


LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="pods have addresses of their own, which Linux has on loopback"
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return rendered(write_tree(tmp_path_factory.mktemp("rehearsal")))


@LINUX
@pytest.mark.timeout(420)
def test_no_keyed_call_fails_and_no_task_is_lost_while_pods_are_rolled_and_killed():
    done = subprocess.run(
        [sys.executable, "-m", "k8s.rehearsal", "--short", "-o", "json"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert [phase["name"] for phase in found["phases"]] == PHASES
    assert all(phase["calls"] > 0 and phase["max_s"] > 0 for phase in found["phases"])
    assert {row["container"] for row in found["memory"]} == CONTAINERS
    assert int(found["tasks"]["tasks accepted"]) > 0


def left(folder):
    """Returns the programs that run for a rehearsal in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if bytes(folder) in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append((process / "cmdline").read_bytes())
    return found


@LINUX
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
async def test_whatever_ends_a_rehearsal_ends_all_that_it_has_started(number, code):
    with tempfile.TemporaryDirectory(prefix="mw-") as home:
        folder = Path(home) / "r"
        command = [sys.executable, "-m", "k8s.rehearsal", "--short", "--folder", str(folder)]
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            await until(lambda: len(left(folder)) > 8, 60)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        assert process.returncode == code
        assert b"Traceback" not in said
        await until(lambda: not left(folder), 20)


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    for folder, words in ((Path("/proc/new"), b"choose a new one"), (tmp_path / ("x" * 60), b"too long")):
        command = [sys.executable, "-m", "k8s.rehearsal", "--folder", str(folder)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: ")
        assert words in done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_rehearsed_follows_every_rule(objects, rule):
    assert list(rule(objects)) == []


def test_what_is_rehearsed_is_two_of_everything_and_the_store(objects):
    replicas = {name: one["spec"].get("replicas", 1) for name, one in workloads(objects).items()}
    assert replicas == dict.fromkeys(("registry", "gateway", "tools", "helper", "trader"), 2) | {
        "store": 1,
        "install": 1,
    }


def test_the_rehearsal_ships_with_no_package():
    assert not (K8S / "rehearsal").is_relative_to(REPO / "cli")
    assert '"k8s' not in (REPO / "pyproject.toml").read_text().partition("[tool.ruff]")[0]
