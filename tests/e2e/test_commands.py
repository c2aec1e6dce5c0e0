"""The commands that talk to a mesh: data on stdout, one line for an error, an exit code that says its kind."""

import json
import subprocess

import pytest
from typer.testing import CliRunner

from meshwright.cli import ports
from meshwright.cli.main import app
from tests.e2e.conftest import MESHWRIGHT


@pytest.fixture
def cli(dev):
    def run(*arguments):
        command = [*MESHWRIGHT, *arguments, "--edge", f"http://127.0.0.1:{dev.port}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_run_prints_the_answer_and_draws_the_steps_beside_it(cli):
    done = cli("run", "What is a fence?", "--stream")
    assert done.returncode == 0
    assert "[fence.md]" in done.stdout
    assert "▶" not in done.stdout
    assert "▶ orchestrator" in done.stderr
    assert "docs.search" in done.stderr


def test_run_prints_json_and_lines_of_json(cli):
    task = json.loads(cli("run", "What is 6 * 7?", "-o", "json").stdout)
    assert "42" in task["output"]
    lines = [json.loads(line) for line in cli("run", "What is 6 * 7?", "--stream", "-o", "jsonl").stdout.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert "result" in lines[-1]


def test_a_task_is_submitted_watched_read_and_listed(cli):
    submitted = json.loads(cli("task", "submit", "count", "--agent", "slow", "--id", "told", "-o", "json").stdout)
    assert submitted["task_id"] == "told"
    watched = cli("task", "watch", "told")
    assert "■ slow" in watched.stdout
    resumed = [
        json.loads(line) for line in cli("task", "watch", "told", "--after", "3", "-o", "jsonl").stdout.splitlines()
    ]
    assert resumed[0]["sequence"] == 4
    assert "Counted to three." in cli("task", "get", "told").stdout
    listed = json.loads(cli("task", "list", "--agent", "slow", "-o", "json").stdout)
    assert "told" in {task["task_id"] for task in listed}
    assert "told" in cli("task", "list").stdout


def test_a_task_that_failed_says_why_and_is_found_by_its_trace(cli, dev):
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    body = {"prompt": "count", "task_id": "untyped", "output_schema": schema}
    dev.request("POST", "/v1/agents/slow/tasks", body)
    task = dev.finished("untyped")
    assert task["status"] == "TASK_STATUS_FAILED"
    assert "OUTPUT_SCHEMA_VIOLATED: " in cli("task", "list", "--status", "failed", "--agent", "slow").stdout
    drawn = cli("trace", task["trace_id"]).stdout
    assert drawn.startswith(f"task untyped, trace {task['trace_id']}\n")
    assert "failed, OUTPUT_SCHEMA_VIOLATED" in drawn
    unknown = cli("trace", "0" * 32)
    assert (unknown.returncode, "is the id of a trace" in unknown.stderr) == (15, True)


def test_a_running_task_is_cancelled(dev):
    edge = f"http://127.0.0.1:{dev.port}"
    dev.request("POST", "/v1/agents/slow/tasks", {"prompt": "count", "task_id": "stopped"})
    # in this process: a new one would take as long to start as the task takes
    done = CliRunner().invoke(app, ["task", "cancel", "stopped", "--reason", "enough", "--edge", edge])
    assert done.exit_code == 0, done.output
    task = dev.finished("stopped")
    assert task["status"] == "TASK_STATUS_CANCELLED"
    assert task["steps_used"] < 4
    again = CliRunner().invoke(app, ["task", "cancel", "stopped", "--edge", edge])
    assert again.stdout == "stopped  cancelled\n"
    assert dev.request("POST", "/v1/agents/slow/run", {"prompt": "count"}).json["output"] == "Counted to three."


def test_agents_and_tools_are_listed_and_a_tool_is_called(cli):
    assert "researcher" in cli("agent", "list").stdout
    tools = json.loads(cli("tool", "list", "-o", "json").stdout)
    assert {"docs.read", "docs.search"} <= {tool["name"] for tool in tools}
    found = json.loads(cli("tool", "call", "docs.search", '{"query": "lease"}').stdout)
    assert found["hits"][0]["source"] == "lease.md"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "x", "--agent", "nobody"), 15, "no agent nobody is here"),
        (("run", "x", "--tool", "docs.serch"), 15, "is called docs.serch (is docs.search "),
        (("task", "submit", "x", "--tool", "ask.reseacher"), 15, "is called ask.reseacher (is ask.researcher meant?)"),
        (("run", "x", "--model", "m" * 300), 13, "model at most 256 characters"),
        (("task", "get", "nothing"), 15, "no task nothing"),
        (("tool", "call", "docs.search", "{"), 13, "arguments cannot be read"),
        (("tool", "call", "nothing.here"), 15, "no tool nothing.here"),
    ],
)
def test_an_error_is_one_line_with_a_code_of_its_kind(cli, arguments, code, said):
    done = cli(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [("docs.read", '{"id": "../../etc/passwd"}', "docs.search"), ("docs.search", '{"query": 1}', "  /query: ")],
)
def test_what_does_not_fit_a_tool_is_listed_line_by_line(cli, tool, arguments, said):
    done = cli("tool", "call", tool, arguments)
    head, *violations = done.stderr.strip().splitlines()
    assert (done.returncode, head, done.stdout) == (13, "error: the arguments do not fit", "")
    assert said in "\n".join(violations)


def test_without_a_mesh_the_command_says_how_to_start_one():
    edge = f"http://127.0.0.1:{ports.reserve('127.0.0.1', set())}"
    command = [*MESHWRIGHT, "run", "x", "--edge", edge]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 24
    assert "meshwright dev" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_webhooks_are_told_is_listed_through_the_edge(cli, dev):
    answer = dev.request("GET", "/v1/webhooks/deliveries?page_size=5")
    assert (answer.status, answer.json) == (200, {"endpoints": [], "deliveries": []})
    listed = cli("webhook", "list", "-o", "json")
    assert json.loads(listed.stdout) == answer.json
    refused = dev.request("POST", f"/v1/webhooks/deliveries/msg_{'0' * 32}:redeliver", {})
    assert (refused.status, refused.json["details"][0]["reason"]) == (404, "DELIVERY_NOT_FOUND")
