"""The edge as the command line sees it: overloaded, silent, and there again."""

import asyncio
import subprocess
import sys
import time

import pytest

from meshwright.cli import edge as edge_module
from meshwright.cli.edge import Edge
from meshwright.core.errors import DeadlineExceededError, OverloadedError, QueueFullError, SetupError
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.step_event_pb2 import Heartbeat, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceServicer, add_TaskServiceServicer_to_server


class Tasks(TaskServiceServicer):
    """TaskService that fails as a test wants, and notes what it was asked."""

    def __init__(self):
        self.refusals = []
        self.asked = []
        self.answers_after_s = 0.0

    async def GetTask(self, request, context):  # noqa: N802 - an RPC's name
        self.asked.append(request.task_id)
        if self.refusals:
            raise self.refusals.pop(0)
        await asyncio.sleep(self.answers_after_s)
        return TaskResponse(task_id=request.task_id)

    async def WatchTask(self, request, context):  # noqa: N802 - an RPC's name
        self.asked.append(request.after_sequence)
        if self.refusals:
            raise self.refusals.pop(0)
        if request.task_id == "done":
            yield StepEvent(sequence=3, result=TaskResponse(task_id=request.task_id))
            return
        if request.after_sequence < 2:
            for sequence in range(request.after_sequence + 1, 3):
                yield StepEvent(sequence=sequence)
            await asyncio.sleep(60)  # as of a process that is frozen: nothing comes, nothing ends
        for _ in range(4):
            await asyncio.sleep(0.2)
            yield StepEvent(heartbeat=Heartbeat(last_sequence=2))
        yield StepEvent(sequence=3, result=TaskResponse(task_id=request.task_id))

    async def SubmitTask(self, request, context):  # noqa: N802 - an RPC's name
        self.asked.append(dict(context.invocation_metadata()).get("x-agent-id"))
        return TaskResponse(task_id="done", agent_id=request.agent_id)


@pytest.fixture
def tasks():
    return Tasks()


def overloaded(retry_after_s=0.05):
    return OverloadedError("full", retry_after_s=retry_after_s)


async def test_a_mesh_that_is_overloaded_is_asked_again_when_it_says(edge, tasks):
    tasks.refusals = [overloaded(), overloaded()]
    began = time.monotonic()
    assert (await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id="a"))).task_id == "a"
    assert tasks.asked == ["a"] * 3
    assert time.monotonic() - began >= 0.1


async def test_a_mesh_that_stays_overloaded_is_asked_a_few_times_and_within_the_calls_time(edge, tasks):
    tasks.refusals = [overloaded() for _ in range(9)]
    with pytest.raises(OverloadedError):
        await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id="a"))
    assert tasks.asked == ["a"] * 5
    tasks.refusals, tasks.asked = [overloaded(60)], []
    began = time.monotonic()
    with pytest.raises(OverloadedError):
        await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id="b"), timeout_s=40)
    assert (tasks.asked, time.monotonic() - began < 20) == (["b"], True)


async def test_another_refusal_is_told_at_once(edge, tasks):
    tasks.refusals = [QueueFullError("full", retry_after_s=5)]
    with pytest.raises(QueueFullError):
        await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id="a"))
    assert tasks.asked == ["a"]


async def test_a_mesh_that_does_not_answer_in_time_is_told_with_what_to_do(edge, tasks):
    tasks.answers_after_s = 30
    with pytest.raises(DeadlineExceededError) as caught:
        await edge.call(edge.tasks.GetTask, GetTaskRequest(task_id="t"), timeout_s=0.3)
    assert caught.value.message.startswith(f"{edge.url} did not answer within 0.3 s: `meshwright doctor --production")


@pytest.mark.parametrize(
    ("agent_id", "told"), [("price-desk", "price-desk"), ("", None), ("No\nName", None), ("é", None), ("a" * 64, None)]
)
async def test_a_task_that_names_an_agent_goes_to_that_one(edge, tasks, agent_id, told):
    assert (await edge.submit(TaskRequest(agent_id=agent_id, prompt="?"))).agent_id == agent_id
    assert [event.sequence async for event in edge.steps(TaskRequest(agent_id=agent_id))][-1] == 3
    assert tasks.asked[:2] == [told, told]


async def test_a_stream_that_is_silent_is_resumed_after_the_last_sequence(edge, tasks, monkeypatch):
    monkeypatch.setattr(edge_module, "SILENCE_S", 0.5)
    async with asyncio.timeout(10):
        seen = [event.sequence async for event in edge.watch("a") if event.sequence]
    assert seen == [1, 2, 3]  # heartbeats keep the second stream, though it lasts longer
    assert tasks.asked == [0, 2]


async def test_a_stream_that_is_refused_is_opened_again_when_the_mesh_says(edge, tasks, monkeypatch):
    monkeypatch.setattr(edge_module, "RECONNECT_S", 9)
    tasks.refusals = [overloaded(), overloaded()]
    async with asyncio.timeout(5):
        assert [event.sequence async for event in edge.watch("a", after=2) if event.sequence] == [3]
    assert tasks.asked == [2, 2, 2]


async def test_an_api_key_goes_along_with_every_call(tasks):
    shown = []

    class Asked(Tasks):
        async def GetTask(self, request, context):  # noqa: N802 - an RPC's name
            shown.append(dict(context.invocation_metadata())["authorization"])
            return await super().GetTask(request, context)

        async def WatchTask(self, request, context):  # noqa: N802 - an RPC's name
            shown.append(dict(context.invocation_metadata())["authorization"])
            yield StepEvent(sequence=1, result=TaskResponse(task_id=request.task_id))

    services = {"agents.v1.TaskService": bound(add_TaskServiceServicer_to_server, Asked())}
    server = Server(Settings(drain_s=0, tracing=False), services)
    keyed = Edge(f"http://{await server.start()}", "mwk_1")
    assert (await keyed.call(keyed.tasks.GetTask, GetTaskRequest(task_id="a"))).task_id == "a"
    assert [event.sequence async for event in keyed.watch("a")] == [1]
    assert shown == ["Bearer mwk_1"] * 2
    await keyed.close()
    await server.stop()


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://localhost", "https://", "http://localhost:port", "http://[::1"]
)
def test_what_is_no_url_of_an_edge_is_refused(url):
    with pytest.raises(SetupError, match="https://HOST:PORT"):
        Edge(url)


@pytest.mark.parametrize("words", [("run", "hi"), ("task", "watch", "t1")])
async def test_an_edge_that_speaks_plain_text_is_told_in_one_line_without_logs(edge, words):
    url = edge.url.replace("http://", "https://")
    command = [sys.executable, "-m", "meshwright.cli.main", *words, "--edge", url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=50, check=False)
    said = f"error: {url} speaks plain text: write http://, or switch TLS on there\n"
    assert (done.returncode, done.stdout, done.stderr) == (24, "", said)
