"""The six calls of a mesh, made by every kind of client through the edge: the same answers."""

import http.client
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from meshwright.cli import ports
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest, WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from tests.e2e.conftest import MESHWRIGHT, Dev
from tests.e2e.edges import framed

BUF = Path(sys.executable).with_name("buf")
AGENT = "orchestrator"
QUESTION = "What is 6 * 7?"


@dataclass(frozen=True)
class Call:
    """One of the six: its method, its path, what is asked, what is answered."""

    method: str
    verb: str
    path: str
    request: Callable[[str], Any]
    answer: type[Any]


def asked(task_id: str) -> TaskRequest:
    return TaskRequest(prompt=QUESTION, task_id=task_id)


SERVICE, TASKS = "agents.v1.AgentService", "agents.v1.TaskService"
CALLS = {
    "health": Call(
        f"{SERVICE}/Health",
        "GET",
        f"/v1/agents/{AGENT}/health",
        lambda _: HealthRequest(agent_id=AGENT),
        HealthResponse,
    ),
    "run": Call(f"{SERVICE}/RunTask", "POST", f"/v1/agents/{AGENT}/run", asked, TaskResponse),
    "steps": Call(f"{SERVICE}/StreamSteps", "POST", f"/v1/agents/{AGENT}/steps", asked, StepEvent),
    "submit": Call(f"{TASKS}/SubmitTask", "POST", f"/v1/agents/{AGENT}/tasks", asked, TaskResponse),
    "get": Call(f"{TASKS}/GetTask", "GET", "/v1/tasks/{}", lambda task: GetTaskRequest(task_id=task), TaskResponse),
    "watch": Call(
        f"{TASKS}/WatchTask", "GET", "/v1/tasks/{}/steps", lambda task: WatchTaskRequest(task_id=task), StepEvent
    ),
}
STREAMS = ("steps", "watch")


def by_http(dev: Any, call: Call, task_id: str, accept: str) -> Iterator[Any]:
    """Calls by JSON over HTTP; a stream comes in the form that is asked for."""
    body = json_format.MessageToDict(call.request(task_id)) if call.verb == "POST" else None
    if body:
        body = {"prompt": body["prompt"], "task_id": task_id}
    answer = dev.request(call.verb, call.path.format(task_id), body, accept=accept)
    assert answer.status == (202 if "tasks" in call.path and call.verb == "POST" else 200), answer.body
    is_sse = answer.headers["content-type"] == "text/event-stream"
    assert is_sse == (accept == "text/event-stream" and call.answer is StepEvent)
    for line in answer.body.splitlines():
        if line.strip() and not line.startswith(b"id: "):
            yield json_format.Parse(line.removeprefix(b"data: "), call.answer())


def by_json(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    return by_http(dev, call, task_id, "application/json")


def by_sse(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    return by_http(dev, call, task_id, "text/event-stream")


def by_ndjson(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    return by_http(dev, call, task_id, "application/x-ndjson")


def by_stub(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    """Calls by the generated stub."""
    service, _, name = call.method.partition("/")
    with grpc.insecure_channel(f"127.0.0.1:{dev.port}") as channel:
        stub = (AgentServiceStub if service == SERVICE else TaskServiceStub)(channel)
        answer = getattr(stub, name)(
            call.request(task_id), timeout=20, metadata=(*dev.headers.items(), ("x-agent-id", AGENT))
        )
        yield from ([answer] if isinstance(answer, Message) else answer)


def by_grpc_web(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    """Calls as a browser's gRPC client does."""
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "x-agent-id": AGENT}
    headers |= dev.headers
    connection = http.client.HTTPConnection("127.0.0.1", dev.port, timeout=20)
    try:
        connection.request("POST", f"/{call.method}", framed(call.request(task_id).SerializeToString()), headers)
        body = connection.getresponse().read()
    finally:
        connection.close()
    while body:
        kind, length = body[0], int.from_bytes(body[1:5])
        message, body = body[5 : 5 + length], body[5 + length :]
        if kind & 0x80:
            assert b"grpc-status:0" in message
        else:
            yield call.answer.FromString(message)


def by_buf(dev: Any, call: Call, task_id: str) -> Iterator[Any]:
    """Calls by `buf curl` with the descriptor set that the edge publishes."""
    descriptors = dev.folder / "descriptors.binpb"
    descriptors.write_bytes(dev.request("GET", "/assets/descriptors.binpb").body)
    data = json_format.MessageToJson(call.request(task_id))
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--schema", descriptors]
    command += [word for name, value in dev.headers.items() for word in ("--header", f"{name}: {value}")]
    command += ["--header", f"x-agent-id: {AGENT}", "-d", data, f"http://127.0.0.1:{dev.port}/{call.method}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text, decoder = done.stdout.strip(), json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        text = text[end:].strip()
        yield json_format.ParseDict(value, call.answer())


CLIENTS = {
    "json": by_json,
    "sse": by_sse,
    "ndjson": by_ndjson,
    "stub": by_stub,
    "grpc-web": by_grpc_web,
    "buf curl": by_buf,
}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, documents):
    """A mesh that asks who is calling, and a key that opens the six calls."""
    folder = tmp_path_factory.mktemp("keyed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHWRIGHT_AUTH", "keys")
        running = Dev(folder, ports.reserve("127.0.0.1", set()), "--docs", str(documents))
        try:
            running.start()
            made = ("key", "create", "--name", "six", "--scopes", "tasks,agents:read", "--data", str(folder / "data"))
            done = subprocess.run([*MESHWRIGHT, *made], capture_output=True, text=True, timeout=60, check=True)
            running.headers = {"x-api-key": done.stdout.strip()}
            yield running
        finally:
            running.stop()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mesh", ["dev", "keyed"])
def test_each_call_is_answered_alike_to_every_client(request, mesh, name, client):
    dev = request.getfixturevalue(mesh)
    task_id = f"six-{uuid.uuid4().hex[:12]}"
    if name in ("get", "watch"):
        dev.request("POST", CALLS["run"].path, {"prompt": QUESTION, "task_id": task_id})
    answers = [one for one in CLIENTS[client](dev, CALLS[name], task_id) if name not in STREAMS or one.sequence]
    last = answers[-1]
    if name in STREAMS:
        assert [one.sequence for one in answers] == list(range(1, len(answers) + 1))
        assert "42" in last.result.output
        return
    assert len(answers) == 1
    if name == "health":
        assert last.agent_id == AGENT
    elif name == "submit":
        assert last.task_id == task_id
        assert "42" in dev.finished(task_id)["output"]
    else:
        assert "42" in last.output


@pytest.mark.parametrize("name", CALLS)
def test_nobody_is_answered_who_shows_no_key(keyed, name):
    call = CALLS[name]
    answer = keyed.request(call.verb, call.path.format("none"), {"prompt": QUESTION}, x_api_key="")
    assert (answer.status, answer.json["details"][0]["reason"]) == (401, "CREDENTIALS_MISSING")
    with grpc.insecure_channel(f"127.0.0.1:{keyed.port}") as channel:
        service, _, method = call.method.partition("/")
        stub = (AgentServiceStub if service == SERVICE else TaskServiceStub)(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(getattr(stub, method)(call.request("none"), timeout=20))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
