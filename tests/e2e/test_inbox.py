"""People in the loop through the edge: the inbox on the command line, decisions by HTTP."""

import json
import time

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app


@pytest.fixture
def cli(dev):
    def run(*arguments):
        return CliRunner().invoke(app, [*arguments, "--edge", f"http://127.0.0.1:{dev.port}"])

    return run


@pytest.fixture
def waiting(dev):
    """Submits tasks that wait for a person."""

    def submitted(task_id):
        dev.request("POST", "/v1/agents/asking/tasks", {"prompt": "Send it.", "task_id": task_id})
        ends = time.monotonic() + 10
        while (task := dev.request("GET", f"/v1/tasks/{task_id}").json)["status"] != "TASK_STATUS_INPUT_REQUIRED":
            assert time.monotonic() < ends, task
            time.sleep(0.02)
        return task

    return submitted


def test_the_inbox_shows_what_would_run_and_a_decision_lets_it(cli, waiting, dev):
    (pending,) = waiting("asked")["pending_inputs"]
    listed = cli("task", "inbox").stdout
    assert 'mail.send@1.0.0 {"to": "ann"}' in listed
    assert pending["intent_digest"][:12] in listed
    assert "asked" in {task["task_id"] for task in json.loads(cli("task", "inbox", "-o", "json").stdout)}
    shown = cli("task", "get", "asked").stdout
    assert f"meshwright task resolve asked approve --digest {pending['intent_digest'][:12]}\n" in shown
    assert "meshwright task resolve asked reject\n" in shown
    done = cli("task", "resolve", "asked", "approve", "--digest", pending["intent_digest"][:12], "--reason", "yes")
    assert done.exit_code == 0, done.output
    watched = cli("task", "watch", "asked").stdout
    assert "approve" in watched
    assert "■ asking" in watched
    assert "asked " not in cli("task", "inbox").stdout


def test_another_digest_is_refused_by_the_command_and_by_the_edge(cli, waiting, dev):
    task = waiting("misquoted")
    (pending,) = task["pending_inputs"]
    refused = cli("task", "resolve", "misquoted", "approve", "--digest", "0" * 12)
    assert refused.exception.reason == "DIGEST_MISMATCH"
    body = {"input_id": pending["input_id"], "decision": "DECISION_APPROVE", "intent_digest": "0" * 64}
    answer = dev.request("POST", "/v1/tasks/misquoted:resolve", body)
    assert (answer.status, answer.json["details"][0]["reason"]) == (400, "DIGEST_MISMATCH")
    after = dev.request("GET", "/v1/tasks/misquoted").json
    assert (after["last_sequence"], after["pending_inputs"]) == (task["last_sequence"], task["pending_inputs"])
    rejected = cli("task", "resolve", "misquoted", "reject")
    assert rejected.exit_code == 0, rejected.output
    assert "TASK_STATUS_COMPLETED" in cli("task", "watch", "misquoted", "-o", "jsonl").stdout


def test_run_says_what_it_waits_for(cli, waiting, dev):
    answer = dev.request("POST", "/v1/agents/asking/run", {"prompt": "Send it.", "task_id": "held"})
    assert answer.json["status"] == "TASK_STATUS_INPUT_REQUIRED"
    digest = answer.json["pending_inputs"][0]["intent_digest"][:12]
    refused = cli("task", "resolve", "held", "approve")
    assert f"add --digest {digest}" in refused.exception.message
    refused = cli("task", "resolve", "held", "answer", "yes")
    assert "it takes one of approve, reject, edit" in refused.exception.message
    edited = cli("task", "resolve", "held", "edit", '{"to": "bob"}', "--digest", digest)
    assert edited.exit_code == 0, edited.output
    events = [json.loads(line) for line in cli("task", "watch", "held", "-o", "jsonl").stdout.splitlines()]
    results = [event["tool_result"]["result"] for event in events if "tool_result" in event]
    assert results == ["sent to bob"]


def test_there_are_no_dead_letters_where_nothing_died(cli, waiting):
    waiting("alive")
    assert json.loads(cli("task", "dead-letters", "list", "-o", "json").stdout) == []
    assert cli("task", "dead-letters", "retry", "alive").exception.reason == "NO_DEAD_LETTER"
    assert cli("task", "cancel", "alive").exit_code == 0
