"""Revoking a key ends the streams that it has opened, in every form, and nothing else: a whole mesh, by commands."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from meshwright.cli import ports
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from tests.e2e.conftest import Dev, frames
from tests.e2e.edges import framed
from tests.e2e.test_identity import meshwright

ASKING = f"{Path(__file__).with_name('agents.py')}:asking"
WAITING = "TASK_STATUS_INPUT_REQUIRED"
WITHIN_S = 2.5
"""How long after the command a stream may be open: 2 s, and what a busy machine takes to start threads."""


@pytest.fixture
def keyed(tmp_path, monkeypatch, documents):
    """A `meshwright dev` that takes API keys."""
    monkeypatch.setenv("MESHWRIGHT_AUTH", "keys")
    running = Dev(tmp_path, ports.reserve("127.0.0.1", set()), "--docs", str(documents), "--agent", ASKING)
    try:
        yield running.start()
    finally:
        running.stop()


@dataclass
class Seen:
    """What came of one stream, and how it ended."""

    numbers: list[int] = field(default_factory=list)
    end: str = ""
    ended_at: float = 0.0

    @property
    def last(self) -> int:
        return max(self.numbers, default=0)


def key(dev, name, scopes, *more):
    data = ("--data", str(dev.folder / "data"))
    code, made, said = meshwright("key", "create", "--name", name, "--scopes", scopes, *more, *data)
    assert code == 0, said
    return made


def revoke(dev, made):
    code, _, said = meshwright("key", "revoke", made.split("_")[1], "--data", str(dev.folder / "data"))
    assert code == 0, said


def watch_events(dev, task_id, made, seen, query=""):
    """Server-Sent Events with ids."""
    with dev.stream("GET", f"/v1/tasks/{task_id}/events{query}", x_api_key=made) as response:
        assert response.status == 200, response.read()
        for frame in frames(response):
            if "id" in frame:
                seen.numbers.append(int(frame["id"]))
            if frame.get("event") in ("status", "result"):
                told = json.loads(frame["data"])
                seen.end = told["details"][0]["reason"] if frame["event"] == "status" else "result"
    seen.ended_at = time.monotonic()


def watch_lines(dev, task_id, made, seen, query=""):
    """One JSON object a line."""
    with dev.stream("GET", f"/v1/tasks/{task_id}/steps{query}", x_api_key=made) as response:
        assert response.status == 200, response.read()
        for line in response:
            event = json.loads(line)
            seen.numbers += [event["sequence"]] if event["sequence"] else []
            seen.end = "result" if "result" in event else ""
    seen.ended_at = time.monotonic()


def watch_grpc(dev, task_id, made, seen):
    """gRPC."""
    request = WatchTaskRequest(task_id=task_id)
    with grpc.insecure_channel(f"127.0.0.1:{dev.port}") as channel:
        stream = TaskServiceStub(channel).WatchTask(request, metadata=[("x-api-key", made)], timeout=60)
        try:
            for event in stream:
                seen.numbers += [event.sequence] if event.sequence else []
        except grpc.RpcError as error:
            seen.end = f"{error.code().name} {MeshError.from_rpc(error).reason}"
    seen.ended_at = time.monotonic()


def watch_web(dev, task_id, made, seen):
    """gRPC-Web."""
    headers = {"content_type": "application/grpc-web+proto", "x_api_key": made}
    body = framed(WatchTaskRequest(task_id=task_id).SerializeToString())
    with dev.stream("POST", "/agents.v1.TaskService/WatchTask", body, **headers) as response:
        while head := response.read(5):
            message = response.read(int.from_bytes(head[1:]))
            if head[0] & 0x80:
                seen.end = message.decode()
            else:
                sequence = StepEvent.FromString(message).sequence
                seen.numbers += [sequence] if sequence else []
    seen.ended_at = time.monotonic()


WATCHES = (watch_events, watch_lines, watch_grpc, watch_web)


@pytest.mark.timeout(150)  # four commands, each a process, beside six streams
def test_streams_of_a_revoked_key_end_in_every_form_and_are_resumed_with_another_key(keyed):
    first, second = key(keyed, "ann", "tasks"), key(keyed, "ann again", "tasks", "--principal", "ann")
    eyes = key(keyed, "bob", "tasks:read,tasks:read_all")
    task_id = keyed.request("POST", "/v1/agents/asking/tasks", {"prompt": "Send it."}, x_api_key=first).json["task_id"]
    while (waiting := keyed.request("GET", f"/v1/tasks/{task_id}", x_api_key=first).json)["status"] != WAITING:
        time.sleep(0.05)
    ending, staying = [Seen() for _ in WATCHES], [Seen(), Seen()]
    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(watch, keyed, task_id, first, one) for watch, one in zip(WATCHES, ending, strict=True)]
        others = [
            threads.submit(watch_events, keyed, task_id, second, staying[0]),
            threads.submit(watch_events, keyed, task_id, eyes, staying[1], "?principal=ann"),
        ]
        try:
            ends = time.monotonic() + 20
            while any(one.last < waiting["last_sequence"] for one in (*ending, *staying)):
                assert time.monotonic() < ends, (ending, staying)
                time.sleep(0.02)
            revoke(keyed, first)
            revoked_at = time.monotonic()
            for one in work:
                one.result(timeout=10)
            assert max(one.ended_at for one in ending) - revoked_at < WITHIN_S
            assert not any(one.done() for one in others)
        finally:  # whatever has failed, the streams of others end with their task
            edge = ("--edge", f"http://127.0.0.1:{keyed.port}")
            code, _, said = meshwright("task", "resolve", task_id, "reject", *edge, MESHWRIGHT_API_KEY=second)
        assert code == 0, said
        for one in others:
            one.result(timeout=10)
    events, lines, called, web = ending
    assert (events.end, called.end, lines.end) == ("KEY_REVOKED", "UNAUTHENTICATED KEY_REVOKED", "")
    assert web.end.startswith("grpc-status:16")
    again = keyed.request("GET", f"/v1/tasks/{task_id}/steps?after_sequence={lines.last}", x_api_key=first)
    assert (again.status, again.json["details"][0]["reason"]) == (401, "KEY_REVOKED")
    whole = list(range(1, staying[0].last + 1))
    assert [(one.numbers, one.end) for one in staying] == [(whole, "result")] * 2
    for watch, before in ((watch_events, events), (watch_lines, lines)):
        rest = Seen()
        watch(keyed, task_id, second, rest, f"?after_sequence={before.last}")
        assert (before.numbers + rest.numbers, rest.end) == (whole, "result")
