"""Many who watch at once: through the edge, past what one connection carries."""

import asyncio
import contextlib
import json

import grpc
import pytest

from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub

WATCHERS = 150


async def read_http(dev, task_id):
    """Watches a task by a connection of its own; returns the numbers of its events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", dev.port)
    try:
        headers = f"host: 127.0.0.1:{dev.port}\r\naccept: text/event-stream\r\n"
        writer.write(f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\n{headers}\r\n".encode())
        assert b" 200 " in await reader.readline()
        numbers = []
        while line := await reader.readline():
            if line.startswith(b"data: "):
                event = json.loads(line.removeprefix(b"data: "))
                numbers += [event["sequence"]] if event["sequence"] else []
                if "result" in event:
                    return numbers
        raise AssertionError(f"the stream ended early: {numbers}")
    finally:
        writer.close()


async def read_grpc(stub, request, metadata=()):
    numbers = []
    async with contextlib.aclosing(aiter(stub(request, metadata=metadata))) as stream:
        async for event in stream:
            numbers += [event.sequence] if event.sequence else []
            if event.HasField("result"):
                return numbers
    raise AssertionError(f"the stream ended early: {numbers}")


@pytest.mark.parametrize("kind", ["http", "grpc", "one agent"])
async def test_many_watches_at_once_all_get_every_event(dev, kind):
    task_id = dev.request("POST", "/v1/agents/slow/tasks", {"prompt": "count"}).json["task_id"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{dev.port}") as channel, asyncio.timeout(40):
        if kind == "http":
            watches = [read_http(dev, task_id) for _ in range(WATCHERS)]
        elif kind == "grpc":
            watch = TaskServiceStub(channel).WatchTask
            watches = [read_grpc(watch, WatchTaskRequest(task_id=task_id)) for _ in range(WATCHERS)]
        else:
            steps, request = AgentServiceStub(channel).StreamSteps, TaskRequest(prompt="count", task_id=task_id)
            watches = [read_grpc(steps, request, (("x-agent-id", "slow"),)) for _ in range(WATCHERS)]
        seen = await asyncio.gather(*watches)
    assert len(seen[0]) > 8
    assert seen == [list(range(1, len(seen[0]) + 1))] * WATCHERS
