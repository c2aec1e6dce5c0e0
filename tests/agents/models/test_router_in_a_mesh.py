"""An agent whose provider goes down and comes back: what its watchers, its metrics and its Health tell meanwhile."""

import asyncio
import contextlib
import json
import os
import sys

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from meshwright.agents.agent import Agent
from meshwright.agents.models.chain import Chain
from meshwright.core import telemetry
from meshwright.core.breaker import OPEN_S, Circuit
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HEALTH_STATUS_DEGRADED,
    HEALTH_STATUS_NOT_SERVING,
    HEALTH_STATUS_SERVING,
    HealthRequest,
)
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_RETRIED, NoticeKind
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest


class Watched:
    """An agent on a provider of the test, with a script as its spare; its circuits run by a clock of the test."""

    def __init__(self, process, client):
        self.process = process
        self.client = client
        self.now = 0.0
        process.router._chain = Chain(pause_s=0)
        for one in process.router.candidates:
            one.breaker._clock = lambda: self.now

    async def ask(self, **fields):
        """Runs a task; returns its result, the notices and the text as a watcher has put it together."""
        text, notices = "", []
        async for event in self.client.agent.StreamSteps(self.request(**fields)):
            if event.HasField("delta"):
                text = text[: event.delta.offset] + event.delta.text
            if event.HasField("notice"):
                notices.append(NoticeKind.Name(event.notice.kind).removeprefix("NOTICE_KIND_"))
            if event.HasField("llm_call"):
                self.llm_call = event.llm_call
            if event.HasField("result"):
                return event.result, notices, text
        raise AssertionError("the stream was cut")

    @staticmethod
    def request(**fields):
        return TaskRequest(prompt="Go.", **fields)

    async def health(self):
        """Returns the status as a whole, and the first model's."""
        response = await self.client.agent.Health(HealthRequest())
        (model,) = [one for one in response.dependencies if one.name == "model openai:small"]
        return response.status, model.status, model.breaker

    async def is_ready(self):
        """Whether a probe finds the process ready."""
        async with grpc.aio.insecure_channel(self.process.server.target) as channel:
            response = await HealthStub(channel).Check(HealthCheckRequest())
        return response.status == HealthCheckResponse.SERVING

    def metric(self):
        return telemetry.MODEL_CIRCUIT.labels("openai:small")._value.get()


@pytest.fixture
async def watched(mesh, openai_server, tmp_path, dial):
    spare = tmp_path / "spare.yaml"
    spare.write_text("agents: {default: [{text: The spare one says so.}]}")
    agent = Agent("worker", "Work.", model=f"openai:small@{openai_server.url}, scripted:{spare}")
    process = await mesh.agent(agent)
    return Watched(process, dial(process))


async def test_down_falls_back_opens_is_tried_and_closes(watched, openai_server):
    openai_server.fails(503)
    assert await watched.health() == (HEALTH_STATUS_SERVING, HEALTH_STATUS_SERVING, "closed")

    result, notices, text = await watched.ask()
    assert (result.status, result.output, result.degraded) == (TASK_STATUS_COMPLETED, "The spare one says so.", True)
    assert (notices, text) == (["RETRIED", "RETRIED", "FELL_BACK"], "The spare one says so.")
    assert (watched.llm_call.model, watched.llm_call.degraded) == ("spare.yaml", True)
    assert watched.llm_call.routed_because == "first of the chain"

    _, notices, _ = await watched.ask()
    assert notices == ["RETRIED", "BREAKER_OPEN", "FELL_BACK"]
    assert await watched.health() == (HEALTH_STATUS_DEGRADED, HEALTH_STATUS_NOT_SERVING, "open")
    assert watched.metric() == Circuit.OPEN
    assert await watched.is_ready()

    asked = len(openai_server.requests)
    _, notices, _ = await watched.ask()
    assert (notices, len(openai_server.requests)) == (["FELL_BACK"], asked)

    watched.now += OPEN_S
    openai_server.replies.clear()
    openai_server.says("I am ", "back.", delay_s=0.3)
    trial = asyncio.create_task(watched.ask())
    async with asyncio.timeout(10):
        while watched.metric() != Circuit.ON_TRIAL:
            await asyncio.sleep(0)
    assert await watched.health() == (HEALTH_STATUS_DEGRADED, HEALTH_STATUS_DEGRADED, "half-open")
    result, notices, _ = await trial
    assert (result.output, result.degraded) == ("I am back.", False)
    assert notices == ["BREAKER_HALF_OPEN", "BREAKER_CLOSED"]
    assert await watched.health() == (HEALTH_STATUS_SERVING, HEALTH_STATUS_SERVING, "closed")
    assert watched.metric() == Circuit.CLOSED


async def test_a_watcher_sees_a_retry_while_the_outage_lasts(watched, openai_server):
    gate = asyncio.Event()

    async def wait(_seconds):
        await gate.wait()

    watched.process.router._chain = Chain(sleep=wait)
    openai_server.fails(503)
    openai_server.says("Here.")
    async with asyncio.timeout(10):
        async for event in watched.client.agent.StreamSteps(watched.request()):
            if event.notice.kind == NOTICE_KIND_RETRIED:
                gate.set()
            if event.HasField("result"):
                assert gate.is_set()
                assert event.result.output == "Here."


async def test_after_half_an_answer_the_next_models_words_take_its_place(watched, openai_server):
    openai_server.streams(openai_server.chunk({"content": "Half an ans"}), is_done=False, is_cut=True)
    result, notices, text = await watched.ask()
    assert result.output == text == "The spare one says so."
    assert (notices, len(openai_server.requests)) == (["FELL_BACK"], 1)


async def test_a_refusal_for_good_is_not_repeated(watched, openai_server):
    openai_server.fails(401, "bad key")
    result, notices, _ = await watched.ask()
    assert (result.degraded, notices, len(openai_server.requests)) == (True, ["FELL_BACK"], 1)


async def test_a_request_may_choose_a_model_and_no_other(watched, openai_server, refusal):
    openai_server.says("Here.")
    result, notices, _ = await watched.ask(model="scripted:spare.yaml")
    assert (result.output, notices, openai_server.requests) == ("The spare one says so.", [], [])
    assert watched.llm_call.routed_because == "scripted:spare.yaml was asked for"
    assert (await watched.ask(model="best"))[0].output == "Here."
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watched.client.run(model="huge")
    error = refusal(refused.value)
    assert (error.reason, set(error.fields)) == ("INVALID_REQUEST", {"model"})
    assert "fast, best, openai:small, scripted:spare.yaml" in error.message


async def test_another_agents_server_knows_its_models_by_its_card(watched, openai_server, mesh, dial, refusal):
    openai_server.says("Here.")
    elsewhere = dial(await mesh.agent(Agent("observer", "Observe.")))
    response = await elsewhere.run(agent_id="worker", model="scripted:spare.yaml")
    assert response.output == "The spare one says so."
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await elsewhere.submit(agent_id="worker", model="offline")
    assert refusal(refused.value).reason == "INVALID_REQUEST"


COURIER = '''
"""An agent whose effects are lines in a file."""

import os
from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="non_idempotent")
async def send(to: str) -> str:
    """Sends a letter."""
    with Path(os.environ["EFFECTS"]).open("a") as file:
        file.write(f"send {to}\\n")
    return f"sent to {to}"


agent = Agent("courier", "Deliver.", tools=[send])
'''


@pytest.fixture
async def courier(mesh, openai_server, tmp_path):
    """Starts processes of an agent on the provider of the test, with a script as its spare."""
    (tmp_path / "courier.py").write_text(COURIER)
    (tmp_path / "spare.yaml").write_text("agents: {default: [{text: The spare one ends it.}]}")
    settings = {
        "STORE_URL": mesh.url,
        "CONTENT_KEYS_FILE": mesh.keys_file,
        "REGISTRY": mesh.target,
        "LEASE_S": "1",
        "MODEL": f"openai:small@{openai_server.url},scripted:{tmp_path / 'spare.yaml'}",
        "DRAIN_S": "0",
        "LOG_LEVEL": "error",
        "TRACING": "false",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESHWRIGHT_")}
    environment = inherited | {f"MESHWRIGHT_{name}": value for name, value in settings.items()}
    processes = []

    async def start():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshwright.agents", f"{tmp_path / 'courier.py'}:agent"),
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"EFFECTS": str(tmp_path / "effects")},
        )
        processes.append(process)
        return process, json.loads(await process.stdout.readline())["target"]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def is_accepted(client):
    """Whether the task is there yet."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        return await client.get("t1")


async def test_a_worker_killed_between_two_tries_changes_nothing(
    courier, mesh, dial, openai_server, tmp_path, becomes, until, kinds, numbers
):
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "send", "arguments": '{"to": "ann"}'}}
    openai_server.streams(openai_server.chunk({"tool_calls": [call]}, "tool_calls"))
    openai_server.fails(503, headers={"retry-after": "2"})  # so long the second try is waited for
    elsewhere = dial(await mesh.agent(Agent("observer", "Observe.")))
    (first, target), _ = await asyncio.gather(courier(), courier())
    running = asyncio.create_task(dial(target).run(task_id="t1"))

    def is_retried(event):
        return event.notice.kind == NOTICE_KIND_RETRIED

    await becomes(lambda: is_accepted(elsewhere))
    await until(elsewhere.tasks.WatchTask(WatchTaskRequest(task_id="t1")), is_retried)
    openai_server.replies.clear()
    openai_server.fails(503)
    first.kill()
    await asyncio.gather(running, return_exceptions=True)
    events = await elsewhere.watch("t1")
    result = events[-1].result
    assert (result.output, result.attempt, result.degraded) == ("The spare one ends it.", 2, True)
    assert (result.steps_used, result.tool_calls) == (2, 1)
    assert (tmp_path / "effects").read_text() == "send ann\n"
    assert numbers(events) == list(range(1, len(events) + 1))
    assert [kind for kind in kinds(events) if kind != "notice"] == [
        *("started", "llm_call", "tool_call", "tool_result", "llm_call", "result")
    ]
    told = [NoticeKind.Name(event.notice.kind).removeprefix("NOTICE_KIND_") for event in events if event.notice.kind]
    assert told == ["RETRIED", "TAKEN_OVER", "RETRIED", "RETRIED", "FELL_BACK"]


@pytest.mark.parametrize("money", [0, 50_000])
async def test_a_model_without_a_price_is_not_asked_where_a_budget_counts_money(
    mesh, openai_server, tmp_path, dial, money
):
    models, prices = tmp_path / "models.yaml", tmp_path / "prices.yaml"
    known = {name: {"spec": f"openai:{name}@{openai_server.url}"} for name in ("unknown", "small")}
    models.write_text(json.dumps({"models": known, "rules": [{"use": ["unknown", "small"]}]}))
    prices.write_text("small: {input: 1000000, output: 1000000}")
    client = dial(await mesh.agent(Agent("worker", "Work."), models=str(models), prices=str(prices)))
    openai_server.says("Done.")
    result = await client.agent.RunTask(TaskRequest(prompt="Go.", cost_budget_micros=money))
    assert result.output == "Done."
    assert openai_server.requests[-1]["model"] == ("small" if money else "unknown")
    if money:
        result = await client.agent.RunTask(TaskRequest(prompt="Go.", model="unknown", cost_budget_micros=money))
        assert MeshError.from_status(result.error).reason == "PRICE_UNKNOWN"
