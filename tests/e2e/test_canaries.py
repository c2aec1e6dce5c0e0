"""Secrets are planted wherever a mesh holds one, and everything is made to fail with them: nobody tells them on.

All processes log at `debug`, serve their metrics, send their spans; an edge logs every request; the audit is exported.
"""

import base64
import contextlib
import http.server
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from meshwright.cli import ports
from meshwright.core.log_fields import FIELDS
from tests.collector import Collector
from tests.e2e.conftest import HERE, JSON, MESHWRIGHT, Dev
from tests.e2e.test_guardrails import metrics, read


def encoded(text):
    return base64.urlsafe_b64encode(json.dumps(text).encode()).decode().rstrip("=")


def token():
    """Makes a JSON Web Token that nobody has signed."""
    parts = encoded({"alg": "RS256"}), encoded({"iss": "somebody", "sub": word()}), secrets.token_urlsafe(60)
    return ".".join(parts)


def word():
    return secrets.token_hex(12) + "Zq7"


CANARIES = {
    "prompt": f"canary{word()}",
    "argument": f"canary{word()}",
    "result": f"canary{word()}",
    "model key": f"sk-proj-{word()}",
    "webhook secret": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
    "master key": base64.b64encode(secrets.token_bytes(32)).decode(),
    "wrong key": f"mwk_{secrets.token_hex(6)}_{secrets.token_hex(32)}",
    "bearer token": token(),
    "password of a peer": word(),
    "token of a peer": word(),
    "another key of a mesh": f"mwk_{secrets.token_hex(6)}_{secrets.token_hex(32)}",
}
TASK = "spies"


class Echo(http.server.BaseHTTPRequestHandler):
    """A provider and a webhook's receiver that refuse, and repeat what they were sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        said = f"{self.headers.get('authorization')} {self.headers.get('webhook-signature')} {body.decode()}"
        answer = json.dumps({"error": {"message": f"no: {said}", "type": "invalid_request_error"}}).encode()
        self.send_response(500 if self.path == "/hooks" else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture(scope="module")
def place():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    with collector.serving():
        yield collector


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, place, collector):
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "content.keys").write_text(f"one {CANARIES['master key']}\n")
    (folder / "content.keys").chmod(0o600)
    hook = (
        f"{{name: pager, url: 'http://{place}/hooks', allow: ['{place}'], texts: true, secrets: [{{env: SPY_HOOK}}]}}"
    )
    (folder / "webhooks.yaml").write_text(f"webhooks:\n  - {hook}\n")
    calls = [
        {"tool_calls": [{"name": name, "arguments": {"pin": CANARIES["argument"]} if pin else {}}]}
        for name, pin in (("vault.open", 1), ("vault.force", 1), ("vault.ring", 0), ("vault.talk", 0))
    ]
    (folder / "spy.yaml").write_text(json.dumps({"agents": {"spy": [*calls, {"text": "Seen."}]}}))
    variables = {
        "MESHWRIGHT_LOG_LEVEL": "debug",
        "MESHWRIGHT_METRICS_PORT": "0",
        "MESHWRIGHT_OTLP_ENDPOINT": collector.endpoint,
        "MESHWRIGHT_STORE_SPANS": "true",
        "MESHWRIGHT_AUTH": "keys",
        "MESHWRIGHT_CONTENT_KEYS_FILE": str(folder / "content.keys"),
        "MESHWRIGHT_WEBHOOKS": str(folder / "webhooks.yaml"),
        "OPENAI_API_KEY": CANARIES["model key"],
        "SPY_HOOK": CANARIES["webhook secret"],
        "SPY_SCRIPT": str(folder / "spy.yaml"),
        "SPY_PROVIDER": f"http://{place}",
        "SPY_CODE": CANARIES["result"],
        "SPY_DSN": f"postgres://spy:{CANARIES['password of a peer']}@db.example:5432/vault",
        "SPY_TOKEN": CANARIES["token of a peer"],
        "SPY_KEY": CANARIES["another key of a mesh"],
    }
    agents = [part for name in ("spy", "asker") for part in ("--agent", f"{HERE / 'spy.py'}:{name}")]
    running = Dev(
        folder, ports.reserve("127.0.0.1", set()), *agents, "--store-port", str(ports.reserve("127.0.0.1", set()))
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            yield running.start()
        finally:
            running.stop()


def meshwright(*arguments, **variables):
    done = subprocess.run(
        [*MESHWRIGHT, *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ | variables
    )
    return done.stdout + done.stderr


def stderr_of(module, **variables):
    """Has a service fail, or live for a moment; returns what it said."""
    command = [sys.executable, "-m", module]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        said = process.communicate()[1]
    assert said, variables
    return said


@pytest.fixture(scope="module")
def failing(mesh):
    """Says what processes say whose store is away, refuses the password, or has an address that is none."""
    password, port = word(), mesh.arguments[mesh.arguments.index("--store-port") + 1]
    bad = {
        "away": f"redis://user:{password}@127.0.0.1:9/0",
        "refused": f"redis://:{password}@127.0.0.1:{port}/0",
        "no address": f"redis://user:{password}@[127.0.0.1:x/0",
        "no port": f"redis://user:{password}@127.0.0.1:x/0",
    }
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda url: stderr_of("meshwright.registry", MESHWRIGHT_STORE_URL=url), bad.values())
        return password, {f"a start, {why}": text for why, text in zip(bad, said, strict=True)}


def ended(mesh, task_id):
    ends = time.monotonic() + 20
    while (task := mesh.request("GET", f"/v1/tasks/{task_id}").json)["status"] in (
        "TASK_STATUS_PENDING",
        "TASK_STATUS_RUNNING",
    ):
        assert time.monotonic() < ends, task
        time.sleep(0.05)
    return task


@pytest.fixture(scope="module")
def canaries(mesh):
    """All that was planted; the mesh has made some by itself."""
    (password,) = parse_qs(urlsplit(mesh.facts["store"]).query)["password"]
    key = meshwright(
        "key", "create", "--name", "ann", "--scopes", "tasks", "--data", str(mesh.folder / "data")
    ).split()[0]
    assert key.startswith("mwk_")
    return CANARIES | {"API key": key, "password of the store": password}


@pytest.fixture(scope="module")
def told(mesh, failing, collector, canaries):
    """Has everything fail; returns by place all that was told of it, and stops the mesh."""
    for credential in (canaries["wrong key"], canaries["API key"] + "0", canaries["bearer token"]):
        assert mesh.request("GET", "/v1/tasks", authorization=f"Bearer {credential}").status == 401
    mesh.headers["authorization"] = f"Bearer {canaries['API key']}"
    spied = mesh.request("POST", "/v1/agents/spy/run", {"prompt": canaries["prompt"], "task_id": TASK})
    assert spied.json["status"] == "TASK_STATUS_COMPLETED", spied.body
    asked = mesh.request("POST", "/v1/agents/asker/run", {"prompt": canaries["prompt"], "task_id": "asks"})
    assert (asked.json["status"], ended(mesh, "asks")["status"]) == ("TASK_STATUS_FAILED", "TASK_STATUS_FAILED")
    assert mesh.request("POST", "/v1/agents/spy/run", f'{{"prompt": "{canaries["prompt"]}"', **JSON).status == 400
    canaries["another password of the store"], starts = failing
    data = str(mesh.folder / "data")
    logs = mesh.folder / "data/logs"
    ends = time.monotonic() + 20
    while not any("webhook_failed" in path.read_text() for path in logs.iterdir()):
        assert time.monotonic() < ends
        time.sleep(0.1)
    places = (
        starts
        | metrics(mesh, "spy")
        | {
            "edge metrics": read(mesh.facts["internal"]),
            "audit": meshwright("audit", "export", "--data", data),
        }
    )
    ends = time.monotonic() + 20
    while "vault.talk" not in "".join(collector.taken) and time.monotonic() < ends:
        time.sleep(0.2)  # spans are sent every few seconds
    assert mesh.stop() == 0
    files = [*logs.iterdir(), mesh.folder / "data/envoy/access.log"]
    return places | {path.name: path.read_text() for path in files} | {"spans": "\n".join(collector.taken)}


def test_a_mesh_with_secrets_everywhere_starts(mesh):
    assert mesh.facts["edge"]


def test_processes_whose_store_is_no_good_say_so(failing):
    _, said = failing
    assert len(said) == 4
    assert all(text.splitlines()[-1].startswith("error: ") for text in said.values()), said
    assert "Traceback" not in "".join(said.values())


def test_every_place_was_looked_at_and_everything_failed(told):
    logs = "".join(text for place, text in told.items() if place.endswith(".log"))
    for event in ("tool_failed", "webhook_failed", "metrics_served", "tool_called", "dialled postgres"):
        assert event in logs, event
    assert f'"task_id":"{TASK}"' in told["access.log"]
    assert "vault.talk" in told["spans"]
    assert "task_accepted" in told["audit"]
    assert any("meshwright_tool_calls" in text for place, text in told.items() if place.endswith("/metrics"))


@pytest.mark.parametrize("kind", [*CANARIES, "API key", "password of the store", "another password of the store"])
def test_a_secret_is_told_nowhere(told, canaries, kind):
    secret = canaries[kind]
    bare = secret.removeprefix("whsec_").removeprefix("sk-proj-")
    if secret.startswith("mwk_"):
        bare = secret.split("_", 2)[2]  # it may hold a `_` itself
    assert len(bare) > 16
    assert [place for place, text in told.items() if secret in text or bare in text] == []


def test_every_line_of_ours_is_json_of_listed_fields(told):
    lines = [line for place, text in told.items() if place.endswith(".log") for line in text.splitlines()]
    ours = [json.loads(line) for line in lines if line.startswith('{"timestamp"')]
    assert len(ours) > 20
    assert set().union(*ours) <= set(FIELDS)
    assert [line for line in ours if "unlisted" in line and line["logger"] != "spy"] == []
    assert [line["unlisted"] for line in ours if "unlisted" in line] == [["secret"]]


def test_lines_of_a_task_name_it_and_its_trace(told):
    lines = [
        json.loads(line) for text in told.values() for line in text.splitlines() if line.startswith('{"timestamp"')
    ]
    failed = [
        line
        for line in lines
        if line["event"] in ("tool_failed", "tool_called", "vault", "ended") and line.get("task_id") == TASK
    ]
    assert len(failed) >= 5
    assert {len(line["trace_id"]) for line in failed} == {32}
    assert len({line["trace_id"] for line in failed}) == 1
    assert all(len(line["span_id"]) == 16 for line in failed)
