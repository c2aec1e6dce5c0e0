"""Tools of other hosts: resolved, pinned, called under a grant, found again when they move."""

import asyncio
import json

import pytest
import structlog.testing

from meshwright.agents.agent import Agent
from meshwright.core import telemetry
from meshwright.core.errors import DeadlineExceededError, MeshError, UnavailableError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_ERROR, TOOL_OUTCOME_OK
from meshwright.registry import current_invocation, tool
from meshwright.registry.client import RegistryClient
from meshwright.registry.store import CatalogStore

calls = []


@tool(effect="non_idempotent", name="post.send")
def send(to: str) -> dict[str, str]:
    """Sends a letter."""
    call = current_invocation()
    calls.append((to, call.task_id, call.key))
    return {"to": to}


SCRIPT = json.dumps(
    {"agents": {"default": [{"tool_calls": [{"name": "post.send", "arguments": {"to": "ann"}}]}, {"text": "Done."}]}}
)


@pytest.fixture
def host(mesh):
    """Starts an agent that hosts the tool."""

    async def started():
        calls.clear()
        return await mesh.agent(Agent("post", "Deliver.", tools=[send]), script=SCRIPT)

    return started


@pytest.fixture
def writer(mesh, dial):
    """Starts an agent that uses the tool by name."""

    async def started(selector="post.send@^1"):
        return dial(await mesh.agent(Agent("writer", "Write.", tools=[selector]), script=SCRIPT))

    return started


async def test_a_tool_that_is_missing_at_the_start_is_said_once_and_when_it_is_there(mesh, host, writer, becomes):
    with structlog.testing.capture_logs() as told:
        starting = asyncio.create_task(writer())
        await becomes(lambda: [one for one in told if one["event"] == "tool_missing"])
        for number in range(3):
            await mesh.agent(Agent(f"other-{number}", "Help.", tools=[other_tool(number)]), script=SCRIPT)
        await host()
        await starting
    ours = [one for one in told if one["event"] in ("tool_missing", "tools_there")]
    assert [one["event"] for one in ours] == ["tool_missing", "tools_there"]
    assert ours[1]["tools"] == ("post.send@1.0.0",)


async def test_a_registry_that_stumbles_as_an_agent_starts_is_asked_again(mesh, host, writer, monkeypatch):
    await host()
    asked, resolution = [], RegistryClient.resolution

    async def stumbles(client, selectors):
        asked.append(selectors)
        if len(asked) <= 2:
            raise (DeadlineExceededError, UnavailableError)[len(asked) - 1]("nobody answers")
        return await resolution(client, selectors)

    monkeypatch.setattr(RegistryClient, "resolution", stumbles)
    with structlog.testing.capture_logs() as told:
        client = await writer()
    assert (await client.run("Go.")).output == "Done."
    assert [one["event"] for one in told if "resolved" in one["event"]] == ["tools_not_resolved"]
    assert asked[:3] == [(), (), ()]


def other_tool(number):
    """Makes a tool that nobody waits for."""

    @tool(effect="pure", name=f"other.tool_{number}")
    def help_out() -> int:
        """Helps."""
        return number

    return help_out


def results(events):
    return [event.tool_result for event in events if event.HasField("tool_result")]


async def test_a_tool_is_called_where_it_is_hosted_under_the_tasks_own_name(host, writer):
    await host()
    client = await writer()
    events = await client.steps(task_id="t1")
    (started,) = [event.started for event in events if event.HasField("started")]
    (intent,) = [event.tool_call for event in events if event.HasField("tool_call")]
    (result,) = results(events)
    assert list(started.tool_pins) == ["post.send@1.0.0"]
    assert (intent.tool, intent.version) == ("post.send", "1.0.0")
    assert (result.outcome, result.result.struct_value["to"]) == (TOOL_OUTCOME_OK, "ann")
    assert calls == [("ann", "t1", intent.idempotency_key)]


async def test_a_call_is_read_to_its_end_and_not_cancelled(host, writer):
    def ended(code):
        return telemetry.CALLS.labels("/tools.v1.ToolService/Invoke", code)._value.get()

    await host()
    client = await writer()
    before = {code: ended(code) for code in ("OK", "CANCELLED")}
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
    assert {code: ended(code) - count for code, count in before.items()} == {"OK": 1, "CANCELLED": 0}


@tool(effect="non_idempotent", name="post.carry")
async def carry() -> str:
    """Carries something, slowly."""
    calls.append("carried")
    await asyncio.sleep(0.3)
    return "there"


async def test_a_host_that_has_too_much_to_do_is_asked_again(mesh, dial):
    calls.clear()
    script = SCRIPT.replace("post.send", "post.carry").replace('{"to": "ann"}', "{}")
    await mesh.agent(Agent("post", "Deliver.", tools=[carry]), script=SCRIPT, max_streams=1)
    client = dial(await mesh.agent(Agent("writer", "Write.", tools=["post.carry"]), script=script))
    refused = telemetry.CALLS.labels("/tools.v1.ToolService/Invoke", "RESOURCE_EXHAUSTED")
    before = refused._value.get()
    tasks = await asyncio.gather(*(client.steps(task_id=f"t{number}") for number in range(3)))
    assert [results(events)[0].outcome for events in tasks] == [TOOL_OUTCOME_OK] * 3
    assert calls == ["carried"] * 3
    assert refused._value.get() > before


async def test_an_agent_waits_for_its_tools_before_it_is_announced(host, writer, mesh):
    starting = asyncio.create_task(writer())
    await asyncio.sleep(0.1)
    assert not starting.done()
    await host()
    client = await starting
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK


async def test_a_tool_that_moved_is_found_again(host, writer, mesh):
    first = await host()
    client = await writer()
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
    await mesh.stop(first)
    await host()
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK


async def test_a_tool_whose_host_is_gone_is_an_outcome_that_the_model_reads(host, writer, mesh, monkeypatch):
    monkeypatch.setattr("meshwright.agents.actor.PATIENCE_S", 0.5)
    first = await host()
    client = await writer()
    await mesh.stop(first)
    events = await client.steps()
    (result,) = results(events)
    assert result.outcome == TOOL_OUTCOME_ERROR
    assert MeshError.from_status(result.error).reason == "UNAVAILABLE"
    assert events[-1].result.output == "Done."


def versioned(version, answers=None):
    """Makes `post.stamp`, which waits while a gate of its version is closed and says its version."""

    @tool(effect="pure", name="post.stamp", version=version)
    async def stamp() -> str:
        """Stamps a letter."""
        calls.append(version)
        if answers:
            await answers.wait()
        return version

    return stamp


STAMP = json.dumps(
    {
        "agents": {
            "default": [
                {"tool_calls": [{"name": "post.stamp", "arguments": {}}]},
                {"tool_calls": [{"name": "post.stamp", "arguments": {}}]},
                {"text": "Done."},
            ]
        }
    }
)


def stamps(events):
    return [result.result.string_value for result in results(events)]


async def test_a_running_task_keeps_its_version_while_new_ones_get_the_newest(mesh, dial, becomes):
    calls.clear()
    is_open = asyncio.Event()
    await mesh.agent(Agent("first", "Stamp.", tools=[versioned("1.0.0", is_open)]), script=STAMP)
    writer = await mesh.agent(Agent("writer", "Write.", tools=["post.stamp"]), script=STAMP)
    bound = await mesh.agent(Agent("bound", "Write.", tools=["post.stamp@^1"]), script=STAMP)
    client = dial(writer)
    running = asyncio.create_task(client.steps(task_id="before"))
    await becomes(lambda: calls == ["1.0.0"])
    await mesh.agent(Agent("second", "Stamp.", tools=[versioned("2.0.0")]), script=STAMP)
    await becomes(lambda: writer.toolbox.current == ("post.stamp@2.0.0",))
    assert stamps(await client.steps(task_id="after")) == ["2.0.0", "2.0.0"]
    is_open.set()
    assert stamps(await running) == ["1.0.0", "1.0.0"]
    await mesh.agent(Agent("third", "Stamp.", tools=[versioned("1.1.0")]), script=STAMP)
    await becomes(lambda: bound.toolbox.current == ("post.stamp@1.1.0",))
    assert stamps(await dial(bound).steps()) == ["1.1.0", "1.1.0"]
    assert writer.toolbox.current == ("post.stamp@2.0.0",)


async def test_aliases_and_deprecations_count_for_tasks_to_come(mesh, becomes):
    for name, version in (("first", "1.0.0"), ("second", "1.1.0")):
        await mesh.agent(Agent(name, "Stamp.", tools=[versioned(version)]), script=STAMP)
    catalog = CatalogStore(mesh.registry._store)
    await catalog.set_alias("post.stamp", "stable", "1.0.0")
    aliased = await mesh.agent(Agent("aliased", "Write.", tools=["post.stamp@stable"]), script=STAMP)
    newest = await mesh.agent(Agent("newest", "Write.", tools=["post.stamp"]), script=STAMP)
    assert (aliased.toolbox.current, newest.toolbox.current) == (("post.stamp@1.0.0",), ("post.stamp@1.1.0",))
    await catalog.set_alias("post.stamp", "stable", "1.1.0")
    await becomes(lambda: aliased.toolbox.current == ("post.stamp@1.1.0",))
    await catalog.deprecate("post.stamp", "1.1.0", 1_900_000_000_000, "")
    await becomes(lambda: newest.toolbox.current == ("post.stamp@1.0.0",))
    assert aliased.toolbox.current == ("post.stamp@1.1.0",)


async def test_a_host_that_moved_is_known_before_it_is_called(host, writer, mesh, becomes):
    first = await host()
    client = await writer()
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
    await mesh.stop(first)
    second = await host()
    toolbox = mesh.agents["writer"].toolbox
    await becomes(lambda: toolbox._pins["post.send@1.0.0"].tool.endpoint == second.server.target)
    resolved = telemetry.CALLS.labels("/registry.v1.ToolRegistryService/ResolveTools", "OK")
    before = resolved._value.get()
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
    assert resolved._value.get() == before


async def test_a_catalog_that_was_emptied_leaves_an_agent_its_tools_until_they_are_back(host, writer, mesh, becomes):
    first = await host()
    client = await writer()
    toolbox = mesh.agents["writer"].toolbox
    await mesh.registry._store.client.delete(
        *(f"mw:{{mesh}}:{noun}" for noun in ("tool:post.send", "tool:post.send:digests", "hosts:post.send")),
        "mw:{mesh}:revision:tools",
        "mw:{mesh}:changes:tools",
        "mw:{mesh}:tools:names",
    )
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
    await mesh.stop(first)
    second = await host()
    await becomes(lambda: toolbox._pins["post.send@1.0.0"].tool.endpoint == second.server.target)
    assert toolbox.current == ("post.send@1.0.0",)


async def test_an_agent_waits_for_its_tools_without_asking_again_and_again(host, writer, mesh):
    resolved = telemetry.CALLS.labels("/registry.v1.ToolRegistryService/ResolveTools", "NOT_FOUND")
    before = resolved._value.get()
    starting = asyncio.create_task(writer())
    await asyncio.sleep(1.2)  # asking again is what would be seen
    assert resolved._value.get() == before + 1
    await host()
    client = await starting
    assert results(await client.steps())[0].outcome == TOOL_OUTCOME_OK
