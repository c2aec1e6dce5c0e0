"""`meshwright webhook`: what endpoints are sent, what is said of their answers, and sending it again."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from meshwright.agents.agent import Agent
from meshwright.cli.main import app
from meshwright.core.errors import BackendUnavailableError, SetupError
from tests.agents.webhook_world import KEY, SECRET, Receiver


@pytest.fixture
async def receiver():
    """A receiver that takes everything."""
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
def invoke(tmp_path, monkeypatch, receiver):
    """Runs the command on a file with two endpoints, in a thread of its own."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    entry = {"name": "crm", "url": receiver.url, "secrets": [{"env": "HOOK_SECRET"}], "allow": [receiver.place]}
    entry["timeout_s"] = 1.0
    other = entry | {"name": "chat", "agents": ["support"], "url": f"http://{receiver.place}/chat"}
    file = tmp_path / "webhooks.yaml"
    file.write_text(json.dumps({"webhooks": [entry, other]}))

    async def run(*arguments):
        return await asyncio.to_thread(CliRunner().invoke, app, ["webhook", "test", str(file), *arguments])

    return run


async def test_every_endpoint_gets_a_signed_event(invoke, receiver):
    result = await invoke()
    assert (result.exit_code, result.stdout.count("taken")) == (0, 2)
    assert {got.event["type"] for got in receiver.got} == {"meshwright.test"}
    assert all(got.is_signed_by(KEY) and got.id == got.event["id"] for got in receiver.got)


async def test_one_can_be_named(invoke, receiver):
    assert (await invoke("chat")).exit_code == 0
    assert len(receiver.got) == 1
    assert isinstance((await invoke("none")).exception, SetupError)


async def test_what_is_not_taken_is_said_and_fails(invoke, receiver):
    receiver.behaviour = lambda n: 500 if n == 1 else 204
    result = await invoke()
    assert isinstance(result.exception, BackendUnavailableError)
    assert "answered 500" in result.stdout
    assert "1 of 2" in result.exception.message


async def test_one_that_does_not_answer_is_said_too(invoke, receiver):
    receiver.behaviour = lambda _: None
    result = await invoke("crm")
    assert "took longer than 1 s" in result.stdout


@pytest.fixture
async def mesh_cli(mesh, tmp_path, monkeypatch, receiver):
    """Runs `meshwright webhook ...` against an agent whose host has a webhook; returns that, and how to run a task."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    entry = {"name": "crm", "url": receiver.url, "secrets": [{"env": "HOOK_SECRET"}], "allow": [receiver.place]}
    file = tmp_path / "webhooks.yaml"
    file.write_text(json.dumps({"webhooks": [entry]}))
    script = json.dumps({"agents": {"default": [{"text": "Done."}]}})
    process = await mesh.agent(Agent("worker", "Work."), script=script, webhooks=str(file))

    async def run(*arguments):
        words = [*arguments, "--edge", f"http://{process.server.target}"]
        return await asyncio.to_thread(CliRunner().invoke, app, words)

    return run


async def test_what_was_told_is_listed_and_told_again_under_its_id(mesh_cli, receiver):
    receiver.headers, receiver.behaviour = "Retry-After: 600\r\n", lambda n: 503 if n == 1 else 204
    assert (await mesh_cli("run", "Go.")).exit_code == 0
    (first,) = await receiver.receives(1)

    async def listed(words):
        async with asyncio.timeout(20):
            while words not in (await mesh_cli("webhook", "list")).stdout:
                await asyncio.sleep(0.01)

    await listed("answered 503")
    shown = (await mesh_cli("webhook", "list", "--state", "pending", "--endpoint", "crm")).stdout
    for words in (receiver.place, "worker", "task_ended", first.id, "pending", "next 20"):
        assert words in shown
    assert (await mesh_cli("webhook", "redeliver", first.id)).exit_code == 0
    _, second = await receiver.receives(2)
    assert (second.id, second.body) == (first.id, first.body)
    await listed(" delivered ")
    printed = (await mesh_cli("webhook", "list", "-o", "json")).stdout
    assert '"attempts": 2' in printed
    refused = await mesh_cli("webhook", "redeliver", "msg_" + "0" * 32)
    assert refused.exception.reason == "DELIVERY_NOT_FOUND"
