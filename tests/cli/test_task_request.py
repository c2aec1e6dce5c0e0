"""What a task may take and shall bring, as `meshwright run` and `meshwright task submit` say it."""

import asyncio
import inspect
import json

import pytest
from google.protobuf import json_format
from typer.testing import CliRunner

from meshwright.agents.agent import Agent
from meshwright.agents.task import TaskName
from meshwright.cli.edge import Edge, dialled
from meshwright.cli.main import app
from meshwright.cli.run import run
from meshwright.cli.task import submit
from meshwright.core.errors import InvalidRequestError, SetupError, TaskNotFoundError, ToolNotFoundError
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry import tool

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 10}},
    "required": ["n"],
}
ASKED = {
    "session_id": "s1",
    "model": "fast",
    "allowed_tools": ["add"],
    "max_steps": 3,
    "max_tool_calls": 4,
    "token_budget": 1_000,
    "cost_budget_micros": "5000",
    "on_budget_exceeded": "BUDGET_ACTION_FAIL",
    "timeout": "60s",
    "no_cache": True,
    "priority": "TASK_PRIORITY_HIGH",
    "output_schema": SCHEMA | {"properties": {"n": {"type": "integer", "maximum": 10.0}}},
}


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.fixture
async def process(mesh, tmp_path):
    """An agent whose answers are data."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(json.dumps({"worker.yaml": {"input": 1, "output": 1}}))
    script = json.dumps({"agents": {"default": [{"text": '{"n": 7}'}]}})
    return await mesh.agent(Agent("worker", "Work.", tools=[add]), script=script, prices=str(prices))


@pytest.fixture
def cli(process):
    """Runs a command against the agent's process, in a thread of its own."""

    async def ran(*words):
        arguments = [*words, "--edge", f"http://{process.server.target}"]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    return ran


@pytest.fixture
def with_registry(mesh, monkeypatch):
    """Has commands find the registry beside the agent that they name, as they do at an edge."""

    class Both(Edge):
        def __init__(self, url, *facts, **more):
            super().__init__(url, *facts, **more)
            self._registry = dialled(f"http://{mesh.target}", "")
            self.directory = AgentDirectoryServiceStub(self._registry)
            self.tools = ToolRegistryServiceStub(self._registry)

        async def close(self):
            await self._registry.close()
            await super().close()

    monkeypatch.setattr("meshwright.cli.options.Edge", Both)


@pytest.fixture
def options(tmp_path):
    """All options, as somebody writes them."""
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(SCHEMA))
    text = "--session s1 --model fast --tool add --max-steps 3 --max-tool-calls 4 --token-budget 1000"
    text += " --cost-budget 5000 --on-budget fail --timeout 60 --no-cache --priority high"
    return [*text.split(), "--output-schema", str(file)]


def printed(done):
    """Reads the JSON that a command printed; the agent's log, of the same process here, may stand around it."""
    return json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])[0]


@pytest.mark.parametrize("command", [("run",), ("task", "submit")])
async def test_all_that_is_said_reaches_the_task_and_its_answer_is_data(cli, process, options, command):
    done = await cli(*command, "How many?", *options, "-o", "json")
    assert done.exit_code == 0, done.output
    task_id = printed(done)["task_id"]
    record = await process.journal.record(TaskName("default", "default", task_id))
    request = json_format.MessageToDict(record.request, preserving_proto_field_name=True)
    assert {name: request.get(name) for name in ASKED} == ASKED
    await cli("task", "watch", task_id)
    assert printed(await cli("task", "get", task_id, "-o", "json"))["output_data"] == {"n": 7}


@pytest.mark.parametrize("command", [("run",), ("task", "submit")])
@pytest.mark.usefixtures("with_registry")
async def test_a_tool_that_nobody_has_is_refused_before_anything_is_submitted(cli, process, command):
    done = await cli(*command, "How many?", "--id", "t1", "--tool", "ad")
    assert isinstance(done.exception, ToolNotFoundError)
    assert done.exception.message.startswith("no tool and no delegate here is called ad (is add meant?): ")
    with pytest.raises(TaskNotFoundError):
        await process.journal.record(TaskName("default", "default", "t1"))


@pytest.mark.parametrize("command", [("run",), ("task", "submit")])
@pytest.mark.usefixtures("with_registry")
async def test_a_tool_that_somebody_has_is_no_news(cli, command):
    done = await cli(*command, "How many?", "--tool", "add", "--tool", "ask.person")
    assert (done.exit_code, "not checked" in done.output) == (0, False)


@pytest.mark.parametrize("command", [("run",), ("task", "submit")])
async def test_an_agent_alone_does_not_say_which_tools_there_are(cli, command):
    done = await cli(*command, "How many?", "--tool", "ad")
    assert (done.exit_code, "--tool was not checked" in done.stderr) == (0, True)


def test_both_commands_take_the_same():
    ours, theirs = ({*inspect.signature(command).parameters} for command in (run, submit))
    assert ours - theirs == {"stream", "verbose", "wait"}
    assert theirs <= ours


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is no JSON object"),
        ("{", "Expecting"),
        ('{"type": "object", "type": "array"}', "twice"),
        ('{"maximum": NaN}', "NaN is no number of JSON"),
        ("[" * 60_000, "goes too deep"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_file_without_a_schema_is_told_in_one_line(tmp_path, text, said):
    file = tmp_path / "answer.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    done = CliRunner().invoke(app, ["run", "x", "--output-schema", str(file)])
    assert isinstance(done.exception, InvalidRequestError)
    assert (said in done.exception.message, "\n" in done.exception.message) == (True, False)
    assert str(file) in done.exception.message


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path):
    file = tmp_path / "answer.json"
    file.write_text(" " * (64 * 2**10 + 1))
    for path in (file, tmp_path / "none.json"):
        done = CliRunner().invoke(app, ["run", "x", "--output-schema", str(path)])
        assert isinstance(done.exception, SetupError)


async def test_a_schema_that_the_mesh_refuses_is_said_with_its_field(cli, tmp_path):
    file = tmp_path / "answer.json"
    file.write_text('{"type": "string"}')
    done = await cli("task", "submit", "x", "--output-schema", str(file))
    assert isinstance(done.exception, InvalidRequestError)
    assert any(field.startswith("output_schema") for field in done.exception.fields)


async def test_why_a_model_was_asked_is_shown_to_those_who_want_to_know(cli):
    assert (await cli("run", "How many?", "--id", "told")).exit_code == 0
    assert "the only model" not in (await cli("task", "get", "told")).stdout
    assert "asked worker.yaml: the only model" in (await cli("task", "get", "told", "-v")).stdout
    assert "chosen: the only model" in (await cli("task", "watch", "told", "-v")).stdout
