"""What an engine builds of the Dockerfiles, and that it runs as the manifests restrict it."""

import contextlib
import http.client
import json
import shutil
import ssl

import pytest

from tests.images.conftest import EDGE
from tests.images.podman import build, inspected, podman
from tests.k8s.objects import REPO

pytestmark = pytest.mark.timeout(1_500)
MOST_BYTES = {"meshwright/gateway": 60_000_000}
THIN_BYTES = 1_000_000
PARTS = (".ci", "agents", "cli", "core", "gateway", "gen", "k8s", "registry")
USER = "10001"


def test_an_image_is_the_runtime_and_little_more(images):
    runtime = inspected(images["meshwright/runtime"])
    layers = runtime["RootFS"]["Layers"]
    for called, name in images.items():
        found = inspected(name)
        assert found["RootFS"]["Layers"][: len(layers)] == layers, name
        assert found["Size"] - runtime["Size"] <= MOST_BYTES.get(called, THIN_BYTES), name
        assert found["Config"]["User"] == f"{USER}:{USER}"
        assert found["Healthcheck"]["Test"] == ["CMD", "python", "-m", "meshwright.core.healthy"]


def test_what_has_not_changed_is_not_built_again_on_another_checkout(images, python, tmp_path):
    for part in PARTS:
        shutil.copytree(
            REPO / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
        )
    for path in tmp_path.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # another umask; other times of files they have anyhow
    prompts = tmp_path / "agents/meshwright/agents/library/planner/prompts.py"
    prompts.write_text(prompts.read_text() + "\n# changed\n")
    again = build(python, tmp_path)
    assert {name for name in again if inspected(again[name])["Id"] != inspected(images[name])["Id"]} == {
        "meshwright/planner"
    }


class Caller:
    """A client of the edge, with a key that an operator has made."""

    def __init__(self, mesh):
        words = ("meshwright", "key", "create", "--name", "caller", "--scopes", "*", "-o", "json")
        self._key = json.loads(podman("exec", mesh.pods["gateway"].containers[0], *words))["key"]
        self._address = mesh.network.of("gateway")
        self._trust = ssl.create_default_context(cafile=mesh.authority)

    def post(self, path, body):
        """Calls; returns the answer."""
        connection = http.client.HTTPSConnection(self._address, 8443, context=self._trust, timeout=60)
        headers = {"host": EDGE, "content-type": "application/json", "x-api-key": self._key}
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            said = response.read().decode()
        assert response.status == 200, said
        return json.loads(said)


def test_a_task_goes_through_the_edge_and_tools_and_a_projects_agent_answer(mesh):
    caller = Caller(mesh)
    assert "84" in caller.post("/run", {"prompt": "What is 12 * 7?"})["output"]
    told = caller.post("/v1/agents/price-desk/run", {"prompt": "Count the words of 'to be'."})
    assert "2" in told["output"]
    assert caller.post("/v1/tools/loans.fee:invoke", {"arguments": {"days_late": 3}})["result"]["cents"] > 0


def test_processes_are_nobody_and_may_nothing(mesh):
    for pod in mesh.pods.values():
        for name in pod.containers:
            if not inspected(name)["State"]["Running"]:
                continue
            said = dict(line.split(":\t", 1) for line in podman("exec", name, "cat", "/proc/1/status").splitlines())
            assert "0" not in said["Uid"].split()
            assert (int(said["CapEff"], 16), int(said["CapBnd"], 16), said["NoNewPrivs"]) == (0, 0, "1")
            assert "Read-only file system" not in pod.log


def test_all_end_by_themselves_when_they_are_told_to(mesh):
    for name, pod in reversed(mesh.pods.items()):
        if name != "install":
            assert set(pod.stop()) == {0}, pod.log
            assert not pod.is_ready()
