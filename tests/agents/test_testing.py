"""AgentBench: an agent in a mesh of its own, with what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.agents import Agent
from meshwright.agents.library.bundle import BUNDLED, bundled
from meshwright.agents.testing import AgentBench, MadeCall, gathered
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.registry import tool


@tool(effect="pure", name="bench.double")
def double(number: int) -> int:
    """Doubles a number."""
    return 2 * number


@tool(effect="idempotent", name="bench.send", approval="always")
def send(text: str) -> str:
    """Sends a text."""
    return text


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "fence.md").write_text(
        "# Fences\n\nA fence is a counter with random bits. It keeps stale workers out.\n"
    )
    return tmp_path


def scripted(folder: Path, text: str) -> str:
    file = folder / "script.yaml"
    file.write_text(text)
    return f"scripted:{file}"


async def test_a_task_is_played_with_its_calls_and_its_budget():
    async with AgentBench(Agent("doubler", "Double.", tools=[double]), model="offline") as bench:
        played = await bench.ask("Double the number 21")
        assert (played.output, played.finish, played.error) == ("42", "stop", None)
        assert played.calls == [MadeCall("doubler", "bench.double", {"number": 21})]
        assert (await bench.ask("Double the number 21", max_steps=1)).finish == "max_steps"


async def test_bundled_agents_that_it_needs_come_by_themselves(docs):
    async with AgentBench(Agent("desk", "Ask.", delegates=["researcher"]), docs=docs) as bench:
        played = await bench.ask("What is a fence?")
    assert "A fence is a counter with random bits. [fence.md]" in played.output
    assert played.calls[0] == MadeCall("desk", "ask.researcher", {"prompt": "What is a fence?"})
    assert {(call.agent, call.tool) for call in played.calls[1:]} == {
        ("researcher", "docs.search"),
        ("researcher", "docs.read"),
    }


async def test_a_selected_tool_runs_where_it_lives(docs):
    async with AgentBench(bundled("reviewer"), docs=docs) as bench:
        played = await bench.ask("Review: a fence is a counter with random bits.")
    assert "1. supported" in played.output
    assert [call.tool for call in played.calls] == ["docs.search", "review.compare"]


async def test_agents_of_ones_own_stand_beside_it():
    helper = Agent("helper", "Double.", tools=[double])
    async with AgentBench(Agent("desk", "Ask.", delegates=["helper"]), others=[helper], model="offline") as bench:
        played = await bench.ask("Ask the helper: double the number 4")
    assert played.output == "8"


async def test_the_model_takes_the_place_of_the_agents_own(tmp_path):
    agent = Agent("speaker", "Speak.", model="openai:none@http://127.0.0.1:9/v1")
    script = scripted(tmp_path, "agents: {speaker: [{text: Hello.}]}")
    async with AgentBench(agent, model=script) as bench:
        assert (await bench.ask("Speak.")).output == "Hello."


async def test_a_question_to_a_person_ends_the_task(tmp_path):
    script = scripted(tmp_path, "agents: {sender: [{tool_calls: [{name: bench.send, arguments: {text: hi}}]}]}")
    async with AgentBench(Agent("sender", "Send.", tools=[send]), model=script) as bench:
        played = await bench.ask("Send hi.")
    assert played.finish == "input_required"
    assert "bench.send" in played.asked[0].prompt


async def test_a_model_that_refuses_is_the_tasks_error(tmp_path):
    script = scripted(tmp_path, "agents: {speaker: [{error: {code: INVALID, message: no such model}}]}")
    async with AgentBench(Agent("speaker", "Speak."), model=script) as bench:
        played = await bench.ask("Speak.")
    assert played.finish == "error"
    assert "no such model" in played.error.message


async def test_what_is_no_task_is_refused():
    async with AgentBench(Agent("speaker", "Speak."), model="offline") as bench:
        with pytest.raises(InvalidRequestError, match="token_budget"):
            await bench.ask("Speak.", token_budget=1)


async def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    async with AgentBench(Agent("speaker", "Speak."), model="offline"):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


async def test_a_bench_that_was_not_entered_says_so():
    with pytest.raises(SetupError, match="async with"):
        await AgentBench(Agent("speaker", "Speak.")).ask("Speak.")


async def test_an_agent_that_cannot_start_says_why(tmp_path):
    with pytest.raises(SetupError, match="no folder"):
        async with AgentBench(bundled("researcher"), docs=tmp_path / "no folder"):
            raise AssertionError("it has started")

    def fail() -> None:
        raise SetupError("no index")

    with pytest.raises(SetupError, match="no index"):
        async with AgentBench(Agent("speaker", "Speak.", prepare=fail)):
            raise AssertionError("it has started")


def test_a_delegate_that_is_nowhere_is_named():
    with pytest.raises(SetupError, match="agent desk hands work to nobody-here"):
        gathered(Agent("desk", "Ask.", delegates=["nobody-here"]), [], None)


def test_a_tool_that_nobody_runs_is_named():
    with pytest.raises(SetupError, match=r"no agent here runs the tool mail\.send"):
        gathered(Agent("desk", "Ask.", tools=["mail.send@^1"]), [], None)


def test_the_orchestrator_brings_all_bundled_agents_once():
    names = [agent.name for agent in gathered(bundled("orchestrator"), [], None)]
    assert names[0] == "orchestrator"
    assert sorted(names) == sorted(BUNDLED)


@pytest.mark.parametrize(("example", "told"), [("accountant", "1 passed"), ("no_prices", "2 passed")])
def test_the_example_passes(tmp_path, example, told):
    examples = Path(__file__).parents[2] / "examples"
    for name in (f"{example}.py", f"test_{example}.py"):
        (tmp_path / name).write_bytes((examples / name).read_bytes())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{example}.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert told in done.stdout, done.stdout + done.stderr
