"""`meshwright run` where a person is asked: it ends where nobody watches, and stays where somebody does."""

import asyncio
import json
import subprocess
import sys

import pytest

from meshwright.agents.agent import Agent

ASKING = {"tool_calls": [{"name": "ask.person", "arguments": {"question": "Which colour"}}]}


@pytest.fixture
async def cli(mesh):
    """Runs a command against an agent that asks a person, in a process of its own."""
    script = json.dumps({"agents": {"default": [ASKING, {"text": "Painted."}]}})
    process = await mesh.agent(Agent("painter", "Paint.", asks_people=True), script=script)

    async def ran(*words):
        command = [sys.executable, "-m", "meshwright.cli.main", *words, "--edge", f"http://{process.server.target}"]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=50)

    return ran


@pytest.mark.parametrize("words", [(), ("--no-wait", "--stream")])
async def test_where_nobody_watches_a_question_ends_the_command_and_not_the_task(cli, words):
    result = await cli("run", "Paint.", "--id", "t1", *words)
    assert result.returncode == 1
    assert "Which colour. Decide with one of\n" in result.stderr
    lines = [line.strip() for line in result.stderr.splitlines()]
    assert 'meshwright task resolve t1 answer "…"' in lines
    assert "meshwright task resolve t1 fail" in lines
    assert "task t1 waits for a person: meshwright task get t1" in lines
    assert json.loads((await cli("task", "get", "t1", "-o", "json")).stdout)["status"] == "TASK_STATUS_INPUT_REQUIRED"


async def test_a_program_reads_the_task_with_its_questions(cli):
    result = await cli("run", "Paint.", "-o", "json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["pending_inputs"][0]["prompt"] == "Which colour"


@pytest.fixture
async def hurried(mesh):
    """Runs a command against an agent whose budget ends before its answer is whole."""
    replies = [{"text": "Half of it.", "usage": {"input_tokens": 300, "output_tokens": 300}, **ASKING}]
    script = json.dumps({"agents": {"default": replies}})
    process = await mesh.agent(Agent("hurried", "Hurry."), script=script)

    async def ran(*words):
        command = [sys.executable, "-m", "meshwright.cli.main", *words, "--edge", f"http://{process.server.target}"]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=50)

    return ran


async def test_a_part_of_an_answer_is_called_one(hurried):
    result = await hurried("run", "Go.", "--id", "t1", "--max-steps", "1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Half of it.\n", "partial answer: max_steps\n")
    shown = (await hurried("task", "get", "t1")).stdout.splitlines()
    assert (shown[0], shown[-1]) == ("t1  completed, partial answer: max_steps", "Half of it.")
    assert "completed (partial answer: max_steps)" in (await hurried("task", "watch", "t1")).stdout


async def test_where_there_is_no_answer_stdout_is_empty_and_the_command_fails(hurried):
    words = ("run", "Think of it. " * 500, "--id", "t1", "--token-budget", "512")
    result = await hurried(*words)
    assert (result.returncode, result.stdout) == (18, "")
    assert result.stderr.startswith("error: no answer: token_budget_exceeded; --token-budget")
    shown = (await hurried("task", "get", "t1")).stdout.splitlines()
    assert shown[0] == "t1  completed, no answer: token_budget_exceeded"
    assert shown[-1].startswith("I stopped here: this task's budget of tokens is used up.")
    task = json.loads((await hurried(*words, "-o", "json")).stdout)
    assert (task["unanswered"], task["finish_reason"]) == (True, "FINISH_REASON_TOKEN_BUDGET_EXCEEDED")


async def test_who_waits_gets_the_answer_after_the_decision(cli):
    running = asyncio.create_task(cli("run", "Paint.", "--id", "t2", "--wait"))
    async with asyncio.timeout(30):
        while "waits for you" not in (await cli("task", "get", "t2")).stdout:
            await asyncio.sleep(0.02)
        refused = await cli("task", "resolve", "t2", "skip")
        assert (refused.returncode, refused.stderr) == (
            13,
            "error: this question takes no skip: it takes one of answer, fail\n",
        )
        assert (await cli("task", "resolve", "t2", "answer", "green")).returncode == 0
        result = await running
    assert (result.returncode, result.stdout) == (0, "Painted.\n")
