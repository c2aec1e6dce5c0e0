"""Budgets through the edge: the table of costs, and a budget that a person raises from the command line."""

import json
import time

from typer.testing import CliRunner

from meshwright.cli.main import app


def cli(dev, *arguments):
    return CliRunner().invoke(app, [*arguments, "--edge", f"http://127.0.0.1:{dev.port}"])


def test_the_table_of_costs_has_what_was_free_and_says_what_is_no_day(dev):
    task = dev.request("POST", "/v1/agents/orchestrator/run", {"prompt": "What is 12 * 7?", "task_id": "free"}).json
    assert task["usage"]["input_tokens"] > 0
    ends = time.monotonic() + 30
    while not (answer := dev.request("GET", "/v1/costs?by=COST_GROUPING_MODEL")).json["rows"]:
        assert answer.status == 200
        assert time.monotonic() < ends, "nothing is counted"
        time.sleep(0.05)
    assert dev.request("GET", "/v1/costs?from_day=soon").status == 400
    shown = cli(dev, "cost", "--by", "model", "-o", "json")
    assert shown.exit_code == 0
    for row in json.loads(shown.stdout)["rows"]:
        assert (int(row["cost_micros"]), int(row["tokens"]) > 0) == (0, True)
    table = cli(dev, "cost").stdout
    assert "US$" in table
    assert "orchestrator" in table


def test_a_budget_is_raised_from_the_command_line(dev):
    body = {"prompt": "Go.", "task_id": "short", "max_steps": 1, "on_budget_exceeded": "BUDGET_ACTION_ASK"}
    dev.request("POST", "/v1/agents/slow/tasks", body)
    ends = time.monotonic() + 20
    while (task := dev.request("GET", "/v1/tasks/short").json)["status"] != "TASK_STATUS_INPUT_REQUIRED":
        assert time.monotonic() < ends, task
        time.sleep(0.05)
    assert (
        "meshwright task resolve short raise_budget --cost-budget|--token-budget"
        in cli(dev, "task", "get", "short").stdout
    )
    refused = cli(dev, "task", "resolve", "short", "raise_budget")
    assert refused.exit_code == 2
    assert "--max-steps" in refused.stderr
    decided = cli(dev, "task", "resolve", "short", "raise_budget", "--max-steps", "100", "--token-budget", "1000000")
    assert decided.exit_code == 0, decided.output
    assert dev.finished("short")["status"] == "TASK_STATUS_COMPLETED"
