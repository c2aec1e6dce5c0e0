"""What goes on behind the tasks: hung calls, full stores, versions that come and go, tasks that kill their workers."""

import asyncio
import contextlib
import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.models.model import Answer, Usage
from meshwright.agents.pressure import Pressure
from meshwright.core.errors import StoreFullError
from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_DEGRADED
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TAKEN_OVER, NOTICE_KIND_VERSION_CHANGED
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_FAIL,
    DECISION_RETRY,
    INPUT_KIND_ESCALATION,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
)
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest

DONE = {"text": "Done."}
ASK = {"tool_calls": [{"name": "ask.person", "arguments": {"question": "Well?"}}]}


class Plain:
    """A model that says one thing."""

    provider = name = "plain"

    async def answer(self, prompt, on_text):
        return Answer("Plain.", (), Usage(1, 1), self.provider, self.name)

    async def close(self):
        pass


class Hung(Plain):
    """A model that neither answers nor can be cancelled, until it is let go."""

    def __init__(self):
        self.is_over = asyncio.Event()

    async def answer(self, prompt, on_text):
        while not self.is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.is_over.wait()
        return await super().answer(prompt, on_text)


@pytest.fixture
def hung(mesh):
    """A model whose calls hang as long as the test lasts."""
    model = Hung()
    yield model
    model.is_over.set()


async def test_a_call_that_hangs_loses_its_task_to_another_worker(hung, mesh, dial, monkeypatch, until):
    monkeypatch.setattr("meshwright.agents.run.HUNG_AFTER_S", 0.2)
    monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.1)
    first = dial(await mesh.agent(Agent("worker", "Work.", model=hung), lease_s=1, model_timeout_s=1, concurrency=1))
    await first.submit(task_id="t1")
    second = dial(await mesh.agent(Agent("worker", "Work.", model=Plain()), lease_s=1))
    events = second.tasks.WatchTask(WatchTaskRequest(task_id="t1"))
    last = await until(events, lambda event: event.HasField("result"))
    assert (last.result.status, last.result.output) == (TASK_STATUS_COMPLETED, "Plain.")
    notices = [event.notice.kind for event in await second.watch("t1") if event.HasField("notice")]
    assert notices == [NOTICE_KIND_TAKEN_OVER]
    hung.is_over.set()
    await asyncio.sleep(0.1)
    assert (await second.get("t1")).last_sequence == last.sequence, "what came too late was refused"


class TestPressure:
    @pytest.fixture
    async def full(self, store):
        """Fills the store up to a share of its memory."""

        async def fill(share):
            used = (await store.client.info("memory"))["used_memory"]
            await store.client.config_set("maxmemory", int(used / share))

        yield fill
        await store.client.config_set("maxmemory", 0)

    async def test_a_store_that_is_nearly_full_says_so(self, store, full):
        pressure = Pressure(store)
        await full(0.5)
        await pressure.measure()
        pressure.check()
        await full(0.9)
        await pressure.measure()
        with pytest.raises(StoreFullError, match=r"memory is 9\d% full") as refused:
            pressure.check()
        assert refused.value.retry_after_s
        await store.client.config_set("maxmemory", 0)
        await pressure.measure()
        pressure.check()

    async def test_new_work_is_refused_and_what_was_accepted_ends(
        self, mesh, dial, gate, full, monkeypatch, refusal, becomes
    ):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        script = json.dumps({"agents": {"worker": [{"tool_calls": [{"name": "hold", "arguments": {}}]}, DONE]}})
        process = await mesh.agent(Agent("worker", "Work.", tools=[gate.tool]), script=script)
        client = dial(process)
        await client.submit(task_id="t1")
        await client.submit(task_id="t2")
        await gate.holds(2)
        await full(2.0)  # beyond what it may use
        await becomes(lambda: process.worker.pressure.reason)
        assert (await process.health.response()).dependencies[0].status == HEALTH_STATUS_DEGRADED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.submit(task_id="t3")
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (refusal(refused.value).reason, refusal(refused.value).retry_after_s) == ("STORE_FULL", 10)
        assert (await client.submit(task_id="t1")).task_id == "t1", "a known task is attached to"
        gate.open()
        for task_id in ("t1", "t2"):
            assert (await client.ended(task_id)).status == TASK_STATUS_COMPLETED

    async def test_the_stores_own_refusal_is_told_as_one(self, mesh, dial, full, refusal):
        client = dial(await mesh.agent(Agent("worker", "Work.", model=Plain())))
        await full(2.0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.submit(task_id="t1")
        assert refusal(refused.value).reason == "STORE_FULL"


class TestVersions:
    @pytest.fixture
    def start(self, mesh, dial, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)

        async def started(version, *, same_version):
            agent = Agent("worker", "Work.", version=version, asks_people=True, same_version=same_version)
            script = json.dumps({"agents": {"worker": [ASK, DONE]}})
            return dial(await mesh.agent(agent, script=script, lease_s=0.5))

        return started

    async def test_another_version_goes_on_and_says_so(self, start, mesh):
        client = await start("1.0.0", same_version=False)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await mesh.stop(mesh.agents["worker"])
        client = await start("2.0.0", same_version=False)
        await client.resolve("t1", pending, DECISION_ANSWER, answer={"string_value": "yes"})
        response = await client.ended("t1")
        assert (response.output, response.agent_version) == ("Done.", "2.0.0")
        kinds = [event.notice.kind for event in await client.watch("t1") if event.HasField("notice")]
        assert kinds.count(NOTICE_KIND_VERSION_CHANGED) == 1

    @pytest.mark.parametrize(
        ("decision", "status"), [(DECISION_RETRY, TASK_STATUS_COMPLETED), (DECISION_FAIL, TASK_STATUS_FAILED)]
    )
    async def test_a_task_whose_version_is_gone_asks_what_to_do(self, start, mesh, becomes, decision, status):
        client = await start("1.0.0", same_version=True)
        (pending,) = (await client.run(task_id="t1")).pending_inputs
        await mesh.stop(mesh.agents["worker"])
        client = await start("2.0.0", same_version=True)
        await client.resolve("t1", pending, DECISION_ANSWER, answer={"string_value": "yes"})

        async def is_stranded():
            asked = (await client.get("t1")).pending_inputs
            return bool(asked) and asked[0].kind == INPUT_KIND_ESCALATION

        await becomes(is_stranded)
        (stranded,) = (await client.get("t1")).pending_inputs
        await client.resolve("t1", stranded, decision)
        assert (await client.ended("t1")).status == status
