"""A mesh that asks who is calling, as an operator and a caller meet it: by commands."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from meshwright.cli import ports
from tests.e2e.conftest import MESHWRIGHT, Dev

POSTER = f"{Path(__file__).with_name('agents.py')}:poster"


@pytest.fixture
def keyed(tmp_path, monkeypatch, documents):
    """A `meshwright dev` that takes API keys."""
    monkeypatch.setenv("MESHWRIGHT_AUTH", "keys")
    running = Dev(tmp_path, ports.reserve("127.0.0.1", set()), "--docs", str(documents), "--agent", POSTER)
    try:
        yield running.start()
    finally:
        running.stop()


def meshwright(*arguments, **settings):
    done = subprocess.run(
        [*MESHWRIGHT, *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ | settings
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_a_key_is_made_used_by_a_command_and_revoked(keyed):
    data, edge = ("--data", str(keyed.folder / "data")), ("--edge", f"http://127.0.0.1:{keyed.port}")
    ask = ("run", "What is 2 + 2?", *edge)
    code, _, said = meshwright(*ask)
    assert (code, said.startswith("error: say who is calling")) == (26, True), said
    code, key, _ = meshwright("key", "create", "--name", "ci", "--scopes", "tasks,tools:read", *data)
    assert code == 0
    code, answer, said = meshwright(*ask, MESHWRIGHT_API_KEY=key)
    assert (code, "4" in answer) == (0, True), said
    question = "What is a fence and how long is a lease?"  # which the orchestrator hands on, under grants
    code, answer, said = meshwright("run", question, *edge, MESHWRIGHT_API_KEY=key)
    assert (code, "fence.md" in answer, "lease.md" in answer) == (0, True, True), said
    code, listed, _ = meshwright("tool", "list", *edge, MESHWRIGHT_API_KEY=key)
    assert (code, "docs.search" in listed) == (0, True)
    code, _, said = meshwright("cost", *edge, MESHWRIGHT_API_KEY=key)
    assert (code, "costs:read" in said) == (17, True), said
    assert meshwright("key", "revoke", key.split("_")[1], *data)[0] == 0
    code, _, said = meshwright(*ask, MESHWRIGHT_API_KEY=key)
    assert (code, "was revoked" in said) == (26, True), said


def test_another_pair_of_eyes_decides_by_commands(keyed):
    data, edge = ("--data", str(keyed.folder / "data")), ("--edge", f"http://127.0.0.1:{keyed.port}")

    def key(name, scopes):
        return {"MESHWRIGHT_API_KEY": meshwright("key", "create", "--name", name, "--scopes", scopes, *data)[1]}

    ann, bob = key("ann", "tasks"), key("bob", "tasks:read,tasks:read_all,tasks:approve")
    submitted = meshwright("task", "submit", "Send it.", "-a", "poster", "-o", "jsonl", *edge, **ann)[1]
    task_id = json.loads(submitted)["task_id"]
    theirs, ends = ("--principal", "ann", *edge), time.monotonic() + 20
    while task_id not in meshwright("task", "inbox", *theirs, **bob)[1]:
        assert time.monotonic() < ends
    code, _, said = meshwright("task", "resolve", task_id, "reject", *edge, **ann)
    assert (code, "another principal" in said) == (17, True), said
    assert meshwright("task", "get", task_id, *edge, **bob)[0] == 15
    code, _, said = meshwright("task", "resolve", task_id, "reject", *theirs, **bob)
    assert code == 0, said
    code, shown, _ = meshwright("task", "watch", task_id, *theirs, **bob)
    assert (code, "bob" in meshwright("task", "watch", task_id, "-o", "jsonl", *edge, **ann)[1]) == (0, True), shown
    assert meshwright("task", "list", *theirs, **bob)[1].count(task_id) == 1
    assert meshwright("task", "dead-letters", "list", *theirs, **bob)[0] == 0
    code, _, said = meshwright("task", "dead-letters", "list", *theirs, **key("eve", "tasks:read"))
    assert (code, "tasks:read_all" in said) == (17, True), said


def test_an_edge_that_asks_nobody_does_not_leave_this_machine(tmp_path):
    settings = {"MESHWRIGHT_EDGE_HOST": "0.0.0.0", "MESHWRIGHT_FOLDER": str(tmp_path)}
    command = [MESHWRIGHT[0], "-m", "meshwright.gateway"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | settings)
    assert done.returncode == 1
    assert "set MESHWRIGHT_AUTH to keys or jwt" in done.stderr
