"""The lab: its script holds a mesh against every criterion, and names the one that a broken mesh does not keep."""

import asyncio
import contextlib
import http.server
import importlib
import json
import os
import re
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from meshwright.agents.agent import load
from meshwright.agents.library.bundle import bundled
from meshwright.cli import ports
from meshwright.cli.authority import Authority, Wanted
from meshwright.core.api_key import ApiKeys
from meshwright.core.role import Role
from meshwright.core.tls import AUTHORITY
from tests.conftest import Mesh
from tests.e2e.conftest import Dev, is_alive
from tests.e2e.test_by_hand import ByHand
from tests.operate.test_images import ALL, assemble, images, running, serves, target_of

LAB = Path(__file__).parents[2] / "examples/lab"
NAMES = ["health", "delegation", "stored", "resume", "grpc", "guardrail", "limit"]
BROKEN = """
import sys
from dataclasses import replace

sys.path.insert(0, {lab!r})
from coordinator import agent

unguarded = replace(agent, name="unguarded", guardrails=())
alone = replace(agent, name="alone", delegates=("planner",))
forgetful = replace(agent, name="forgetful", remembers=False)
untyped = replace(agent, name="untyped", output_schema=None)
whole = agent
"""
UNLIMITED = {"limit": "a burst of 300 calls: 300 x 200"}
"""What is wrong with a mesh that has no settings of the lab."""
UNMET = {
    "coordinator": UNLIMITED,
    "unguarded": UNLIMITED | {"guardrail": "the task ended with FINISH_REASON_STOP"},
    "alone": UNLIMITED | {"delegation": "reviewer was not asked"},
    "forgetful": UNLIMITED | {"delegation": "the result lacks", "stored": "the result is not kept"},
    "untyped": UNLIMITED | dict.fromkeys(("delegation", "stored"), "the task has no output_data with"),
    "nobody": dict.fromkeys(NAMES, "AGENT_NOT_FOUND") | {"grpc": "no such agent", "limit": "/health answers 404"},
}
"""What each agent of the broken mesh does not keep, and what is said of it."""


def check(*arguments, **environment):
    """Runs the script; returns it with what it says of each criterion: whether it holds, and what was seen."""
    done = subprocess.run(
        [sys.executable, str(LAB / "check.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
        check=False,
    )
    rows = re.findall(r"^(ok|FAILED) +(\w+) +(.+)$", done.stdout, re.MULTILINE)
    return done, {name: (word == "ok", seen) for word, name, seen in rows}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """A mesh without limits, in which coordinators lack one thing each."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "broken.py").write_text(BROKEN.format(lab=str(LAB)))
    agents = [f"{folder / 'broken.py'}:{name}" for name in ("whole", *UNMET) if name not in ("coordinator", "nobody")]
    options = [word for agent in agents for word in ("--agent", agent)]
    running = Dev(folder, ports.reserve("127.0.0.1", set()), *options)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.mark.timeout(150)  # a whole mesh is started and stopped
def test_a_mesh_of_its_own_keeps_every_criterion_and_leaves_nothing_behind():
    with tempfile.TemporaryDirectory() as folder:  # a short path: the store's socket stands in it
        done, seen = check(TMPDIR=folder)
        left = list(Path(folder).iterdir())
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(seen) == NAMES
    assert "x 429, retry-after" in seen["limit"][1]
    assert done.stdout.splitlines()[-1].startswith("7 of 7 criteria hold at http://127.0.0.1:")
    assert left == []


@pytest.mark.timeout(150)  # a whole mesh is started and stopped
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_script_that_is_ended_ends_its_mesh(ending):
    with tempfile.TemporaryDirectory() as folder:
        script = subprocess.Popen([sys.executable, str(LAB / "check.py")], env=os.environ | {"TMPDIR": folder})
        try:
            facts = until_ready(Path(folder))
            script.send_signal(ending)
            assert script.wait(40) == 128 + ending
        finally:
            script.kill()
            script.wait()
        left = list(Path(folder).iterdir())
    assert left == []
    assert [name for name, pid in facts["pids"].items() if is_alive(pid)] == []


def until_ready(folder):
    """Returns what the mesh of a script says that runs where, once all of it does."""
    ends = time.monotonic() + 50
    while not (found := list(folder.glob("lab-*/ready.json"))):
        assert time.monotonic() < ends, "the mesh did not start"
        time.sleep(0.05)
    return json.loads(found[0].read_text())


@pytest.mark.parametrize("name", UNMET)
def test_what_a_mesh_does_not_keep_is_named(mesh, name):
    done, seen = check("--url", f"http://127.0.0.1:{mesh.port}", "--agent", name)
    assert (done.returncode, done.stderr) == (1, "")
    unmet = {criterion: told for criterion, (is_met, told) in seen.items() if not is_met}
    assert unmet.keys() == UNMET[name].keys(), done.stdout
    assert [told for criterion, told in unmet.items() if UNMET[name][criterion] not in told] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://127.0.0.1:1"], "GET http://127.0.0.1:1/health: "),
        (["--url", "http://127.0.0.1:1"], "Connection refused: start a mesh as the lab's README says, or name another"),
        (["--url", "127.0.0.1:8080"], "is no URL of an edge: write http://HOST:PORT or https://HOST:PORT"),
    ],
)
def test_where_there_is_no_mesh_one_line_says_why(arguments, said):
    done, seen = check(*arguments)
    assert (done.returncode, done.stdout, seen) == (2, "", {})
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
async def secured(store, tmp_path):
    """An edge that speaks TLS, asks who is calling, and has the lab's limits; yields its port and authority."""
    authority = Authority.make(tmp_path / "certs")
    authority.issue(Wanted(Role.EDGE, hosts=("localhost",)), 1)
    async with contextlib.AsyncExitStack() as stack:
        mesh = Mesh(store.url, tmp_path, auth="keys")
        await mesh.open()
        stack.push_async_callback(mesh.close)
        researcher = bundled("researcher", tmp_path / "certs")
        for agent in (researcher, bundled("planner"), bundled("reviewer"), load(f"{LAB / 'coordinator.py'}:agent")):
            await mesh.agent(agent, model="offline")
        edge = ByHand(mesh, tmp_path, "")
        stack.push_async_callback(edge.end)
        edge.environment |= limits() | {"MESHWRIGHT_EDGE_TLS_DIR": str(authority.folder / "edge")}
        await edge.gateway()
        await edge.start("meshwright.gateway.envoy")
        yield edge.port, authority.folder / AUTHORITY


def limits():
    lines = (LAB / "k8s/limits.env").read_text().splitlines()
    return dict(line.split("=") for line in lines if line.startswith("MESHWRIGHT_"))


async def test_an_edge_with_tls_and_keys_keeps_every_criterion_for_the_key_of_the_manifests(secured, store):
    port, authority = secured
    (scopes,) = re.findall(r"--scopes (\S+)", (LAB / "k8s/check.yaml").read_text())
    key, _ = await ApiKeys(store).create("lab", scopes.split(","), tenant="default", principal="lab")
    words = ("--url", f"https://localhost:{port}", "--wait", "30")
    shown = {"MESHWRIGHT_API_KEY": key, "MESHWRIGHT_EDGE_CA": str(authority)}
    done, seen = await asyncio.to_thread(check, *words, **shown)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(seen) == NAMES
    refused, _ = await asyncio.to_thread(check, *words[:2], MESHWRIGHT_EDGE_CA=str(authority))
    assert refused.returncode == 1
    assert "401" in refused.stdout
    untrusted, _ = await asyncio.to_thread(check, *words[:2], MESHWRIGHT_API_KEY=key)
    assert untrusted.returncode == 2
    assert "certificate verify failed" in untrusted.stderr


@contextlib.contextmanager
def answering(body, status=200):
    """A server that answers everything alike; yields its URL."""

    class Anything(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_):
            """Is quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>", b"[" * 100_000])
def test_a_server_that_is_no_edge_keeps_no_criterion(body):
    with answering(body) as url:
        done, seen = check("--url", url)
    assert (done.returncode, done.stderr) == (1, "")
    assert {name for name, (is_met, _) in seen.items() if not is_met} == {*NAMES}


def test_an_error_of_the_edge_is_told_by_its_reason_on_one_line():
    error = {"code": 5, "message": "no agent\nnobody", "details": [{"reason": "AGENT_NOT_FOUND"}]}
    with answering(json.dumps(error).encode() + b"\n", 404) as url:
        done, seen = check("--url", url, "--agent", "nobody")
    assert seen["health"] == (False, "GET /v1/agents/nobody/health: 404 AGENT_NOT_FOUND: no agent nobody")
    assert len(done.stdout.splitlines()) == len(NAMES) + 1


def test_a_reader_that_goes_away_ends_the_script_without_a_trace():
    reading, writing = os.pipe()
    os.close(reading)
    with answering(b"{}") as url:
        words = [sys.executable, str(LAB / "check.py"), "--url", url]
        done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=50, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("wait", ["-5", "1e400", "nan", "soon"])
def test_what_is_no_time_to_wait_is_refused(load_part, wait):
    script = load_part("check")
    with pytest.raises(script.argparse.ArgumentTypeError, match="is no time to wait: write seconds, 0 to 3600"):
        script.seconds(wait)
    assert script.seconds("2.5") == 2.5


def test_a_helper_that_failed_is_told_with_the_reason(load_part):
    criteria = load_part("criteria")

    class Failing:
        def call(self, *_):
            return {"status": "TASK_STATUS_FAILED", "error": {"code": 14, "message": "no model answers"}}

    trial = criteria.Trial(Failing(), "coordinator")
    trial.journal = [{"delegation": {"agent_id": name, "child_task_id": "t"}} for name in criteria.HELPERS]
    trial.task = {"output_data": dict.fromkeys(criteria.RESULT)}
    said = "the task of planner ended as TASK_STATUS_FAILED: no model answers"
    assert criteria.verdict(criteria.delegation, trial) == (False, said)
    said = "the task ended as TASK_STATUS_FAILED: no model answers"
    assert criteria.verdict(lambda one: one.task, criteria.Trial(Failing(), "coordinator")) == (False, said)


@pytest.fixture
def load_part(monkeypatch):
    """Imports a module of the lab as the script does."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(LAB))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(LAB)):
            del sys.modules[name]


@pytest.mark.parametrize(
    "spoilt", [lambda events: events[1:], lambda events: events[:1] + events, lambda events: events[:-1]]
)
def test_a_stream_that_is_not_resumed_where_it_was_cut_is_noticed(mesh, load_part, spoilt):
    criteria = load_part("criteria")

    class Spoiling(criteria.Edge):
        """An edge whose second half of a stream lacks events, repeats one, or does not end."""

        def events(self, method, path, body=None, *, after=0):
            yield from (
                spoilt(list(super().events(method, path, body, after=after)))
                if after
                else super().events(method, path, body)
            )

    edge = Spoiling(f"http://127.0.0.1:{mesh.port}")
    is_met, seen = criteria.verdict(criteria.resume, criteria.Trial(edge, "coordinator"))
    assert not is_met, seen


async def test_the_labs_image_runs_the_coordinator_and_the_script(tmp_path, store):
    root, image = tmp_path / "root", images.Image("lab", "examples/lab/Dockerfile", "examples/lab", ALL["runtime"])
    assert [word for word, _ in images.instructions((LAB / "Dockerfile").read_text())] == ["ARG", "FROM", "COPY", "CMD"]
    assemble(image, root)
    assemble(ALL["registry"], root)
    async with running(ALL["registry"], root, MESHWRIGHT_STORE_URL=store.url) as registry:
        place = {"MESHWRIGHT_REGISTRY": await target_of(registry), "MESHWRIGHT_STORE_URL": store.url}
        async with running(image, root, **place) as coordinator:
            assert await serves(await target_of(coordinator))
    packages = os.pathsep.join([str(root / "opt/meshwright"), *site.getsitepackages()])
    script = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", str(root / "opt/meshwright/lab/check.py"), "--url", "http://127.0.0.1:1"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": packages},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, said = await script.communicate()
    assert (script.returncode, said.count(b"\n")) == (2, 1)
    assert said.startswith(b"error: GET http://127.0.0.1:1/health: ")


WALK = [
    r"7 of 7 criteria hold",
    r'"session_id":"party","turn_count":1.*coordinator',
    r"HEALTH_STATUS_SERVING",
    r'data:.*"sequence":3,.*"result".*goal.{1,8}Compare two printers.*id: 4\s.*"result"',
    r'"output":',
    r"GUARDRAIL_BLOCKED",
    r"200.*429.*x-ratelimit-remaining",
]
"""What each block of commands in the walk-through shows."""


@pytest.mark.timeout(150)  # a whole mesh is started and stopped
def test_what_the_readme_says_to_type_works(load_part, tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", (LAB / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == len(WALK)
    (tmp_path / "examples").symlink_to(LAB.parent)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with load_part("mesh").running("offline") as url:
        edge = load_part("edge").Edge(url)
        for block, shown in zip(blocks, WALK, strict=True):
            load_part("criteria").room(edge, "/v1/agents/coordinator/health")  # nobody types as fast as this does
            done = subprocess.run(
                [
                    "/bin/bash",
                    "-euo",
                    "pipefail",
                    "-c",
                    block.replace("http://localhost:8080", url).replace("localhost:8080", url),
                ],
                capture_output=True,
                text=True,
                timeout=50,
                cwd=tmp_path,
                env=os.environ | {"PATH": path, "MESHWRIGHT_EDGE": url},
                check=False,
            )
            assert done.returncode == 0, block + done.stdout + done.stderr
            assert re.search(shown, done.stdout, re.DOTALL), done.stdout
