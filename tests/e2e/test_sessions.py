"""Sessions through the edge: by HTTP and by the command line."""

import json
import subprocess

import pytest

from tests.e2e.conftest import MESHWRIGHT


@pytest.fixture
def cli(dev):
    def run(*arguments):
        command = [*MESHWRIGHT, "session", *arguments, "--edge", f"http://127.0.0.1:{dev.port}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def ask(dev, session, task):
    body = {"prompt": "What is 6 * 7?", "session_id": session, "task_id": task}
    assert dev.request("POST", "/run", body).json["status"] == "TASK_STATUS_COMPLETED"


def test_a_session_is_shown_exported_and_deleted_over_http(dev):
    pinned = dev.request("POST", "/v1/sessions/web/facts", {"text": "Sails are red."})
    assert pinned.status == 200
    for number in range(2):
        ask(dev, "web", f"web-{number}")
    ask(dev, "web", "web-2")  # in its turn: what came before is remembered
    shown = dev.request("GET", "/v1/sessions/web?turns=5").json
    assert [fact["text"] for fact in shown["facts"]] == ["Sails are red."]
    assert [turn["task_id"] for turn in shown["turns"]][:2] == ["web-0", "web-1"]
    exported = dev.request("GET", "/v1/sessions/web:export")
    kinds = [next(iter(json.loads(line))) for line in exported.body.decode().splitlines()]
    assert kinds[:3] == ["session", "turn", "turn"]
    assert "web" in [one["session_id"] for one in dev.request("GET", "/v1/sessions").json["sessions"]]
    assert dev.request("DELETE", f"/v1/sessions/web/facts/{pinned.json['fact_id']}").status == 200
    deleted = dev.request("DELETE", "/v1/sessions/web")
    assert (deleted.status, deleted.json["tasks"]) == (200, 3)
    missing = dev.request("GET", "/v1/sessions/web")
    assert (missing.status, missing.json["details"][0]["reason"]) == (404, "SESSION_NOT_FOUND")
    assert dev.request("GET", "/v1/tasks/web-0").status == 404


def test_a_session_is_managed_on_the_command_line(dev, cli):
    assert cli("pin", "told", "Sails are red.").stdout.endswith("pinned to told\n")
    fact = json.loads(cli("show", "told", "-o", "json").stdout)["facts"][0]["fact_id"]
    assert "pinned: Sails are red." in cli("show", "told").stdout
    assert "told" in cli("list").stdout
    assert "session" in json.loads(cli("export", "told").stdout.splitlines()[0])
    assert cli("unpin", "told", fact).returncode == 0
    again = cli("unpin", "told", fact)
    assert (again.returncode, again.stderr.startswith(f"error: {fact} is not pinned to told")) == (15, True)
    assert "deleted: 0 tasks" in cli("delete", "told").stdout
    gone = cli("show", "told")
    assert gone.returncode == 15
    assert gone.stderr.startswith("error: no session told")
