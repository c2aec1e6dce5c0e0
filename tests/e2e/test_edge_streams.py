"""Streams through the edge: the same events in every form, never lost, and nobody waits for one that has gone."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import grpc
import pytest
from google.protobuf import json_format
from prometheus_client import REGISTRY

from meshwright.agents.agent import Agent
from meshwright.agents.feed import Feeds
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.registry.tool import tool
from tests.e2e.conftest import frames
from tests.e2e.edges import HARD, JSON, Edge, Envoy, connections, framed

ROUNDS = 6
SCRIPT = "agents: {default: [%s, {text: Done., latency_ms: 500}]}"
TICK = "{tool_calls: [{name: tick, arguments: {number: %d}}], latency_ms: 500}"
SSE = "text/event-stream"
WATCH = "/agents.v1.TaskService/WatchTaskEvents"


@tool(effect="pure")
def tick(number: int) -> int:
    """Counts one further."""
    return number + 1


@pytest.fixture
async def edge(mesh, tmp_path):
    """An edge that ends every stream after a second, in front of an agent that works for about three."""
    script = SCRIPT % ", ".join(TICK % number for number in range(ROUNDS))
    process = await mesh.agent(Agent("slow", "Counts.", tools=[tick]), script=script)
    envoy = Envoy(tmp_path / "envoy", {"slow": [process.server.target]}, registry=mesh.target, stream_max_s=1)
    envoy.launch()
    await asyncio.to_thread(envoy.wait)
    yield envoy
    envoy.__exit__()


def submitted(edge):
    return edge.post("/v1/agents/slow/tasks", {"prompt": "count"}).json["task_id"]


def read_some(edge, task_id, last):
    """Reads one connection as an EventSource does; returns the frames that came, or None: nothing more will."""
    seen = []
    with edge.opened("GET", f"/v1/tasks/{task_id}/events", last_event_id=last, accept_encoding="gzip, br") as response:
        if response.status == 204:
            return None
        assert response.status == 200
        assert response.getheader("content-encoding") is None
        assert response.getheader("content-type") == "text/event-stream"
        with contextlib.suppress(http.client.IncompleteRead):
            seen.extend(frames(response))
    return [frame for frame in seen if "id" in frame]


def read_all(edge, task_id):
    """Reads a task's events, over as many connections as it takes; returns them with their number."""
    seen, last, cut = [], "0", 0
    while (some := read_some(edge, task_id, last)) is not None:
        seen += some
        last = seen[-1]["id"] if seen else "0"
        cut += 1
        assert cut < 30
    return seen, cut


def read_steps(edge, last):
    """Posts one task as whoever lost its stream does; returns the frames that came with an id."""
    seen, body = [], json.dumps({"prompt": "count", "task_id": "posted"}).encode()
    with edge.opened("POST", "/v1/agents/slow/steps", body, accept=SSE, last_event_id=last, **JSON) as response:
        assert response.status == 200
        with contextlib.suppress(http.client.IncompleteRead):
            seen.extend(frames(response))
    return [frame for frame in seen if "id" in frame]


async def test_a_posted_stream_that_is_cut_goes_on_after_its_last_id(edge):
    seen, cut = [], 0
    while not seen or "result" not in json.loads(seen[-1]["data"]):
        seen += await asyncio.to_thread(read_steps, edge, seen[-1]["id"] if seen else "0")
        cut += 1
        assert cut < 30
    assert cut >= 3
    assert [int(frame["id"]) for frame in seen] == list(range(1, len(seen) + 1))
    assert [json.loads(frame["data"])["sequence"] for frame in seen] == [int(frame["id"]) for frame in seen]


def test_a_step_has_its_number_as_its_id_whatever_it_says(tmp_path):
    path, body = "/v1/agents/orchestrator/steps", b'{"prompt": "large"}'
    with Edge(tmp_path / "envoy") as edge:
        with edge.opened("POST", path, body, accept=SSE, **JSON) as response:
            raw = response.read().decode()
        with edge.opened("POST", path, body, **JSON) as response:
            lines = [json.loads(line) for line in response.read().splitlines()]
    told = [part.partition("data: ") for part in raw.removesuffix("\n\n").split("\n\n")]
    assert [before for before, _, _ in told] == ["id: 1\n", "", "id: 4294967295\n", "", "id: 10\n"]
    assert [json.loads(data) for _, _, data in told] == lines
    assert [json_format.ParseDict(line, StepEvent()) for line in lines] == HARD


async def test_a_stream_that_is_cut_at_its_longest_time_goes_on_where_it_was(edge):
    task_id = await asyncio.to_thread(submitted, edge)
    seen, connections = await asyncio.to_thread(read_all, edge, task_id)
    assert connections >= 3
    assert [int(frame["id"]) for frame in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["event"] == "result"
    task = (await asyncio.to_thread(edge.request, "GET", f"/v1/tasks/{task_id}")).json
    assert (task["status"], task["last_sequence"]) == ("TASK_STATUS_COMPLETED", len(seen))


def grpc_web_events(body):
    """Reads the messages of an answer in gRPC-Web; returns them and the text of the trailers."""
    events, trailers = [], b""
    while body:
        kind, length = body[0], int.from_bytes(body[1:5])
        message, body = body[5 : 5 + length], body[5 + length :]
        if kind & 0x80:
            trailers = message
        else:
            events.append(StepEvent.FromString(message))
    return events, trailers


async def test_all_forms_of_a_stream_have_the_same_events(edge):
    task_id = await asyncio.to_thread(submitted, edge)
    frames_seen, _ = await asyncio.to_thread(read_all, edge, task_id)
    wanted = [json.loads(frame["data"]) for frame in frames_seen]
    path = f"/v1/tasks/{task_id}/steps"
    gzip = {"accept-encoding": "gzip"}
    lines = await asyncio.to_thread(lambda: edge.request("GET", path, **gzip))
    assert lines.headers["content-type"] == "application/json"
    assert "content-encoding" not in lines.headers
    assert [json.loads(line) for line in lines.body.splitlines()] == wanted
    sse = await asyncio.to_thread(lambda: edge.request("GET", path, accept="text/event-stream"))
    assert [json.loads(line[6:]) for line in sse.body.splitlines() if line.startswith(b"data: ")] == wanted
    ids = [line.removeprefix(b"id: ").decode() for line in sse.body.splitlines() if line.startswith(b"id: ")]
    assert ids == [frame["id"] for frame in frames_seen]
    request = framed(WatchTaskRequest(task_id=task_id).SerializeToString())
    headers = {"content-type": "application/grpc-web+proto"}
    web = await asyncio.to_thread(lambda: edge.request("POST", "/agents.v1.TaskService/WatchTask", request, **headers))
    events, trailers = grpc_web_events(web.body)
    assert [event.sequence for event in events] == [int(event["sequence"]) for event in wanted]
    assert b"grpc-status:0" in trailers


def cancelled():
    """How many watches have ended because the watcher was gone."""
    labels = {"method": WATCH, "code": "CANCELLED"}
    return REGISTRY.get_sample_value("meshwright_calls_total", labels) or 0


async def test_a_watcher_that_has_gone_is_forgotten_and_the_task_goes_on(edge):
    task_id, before = await asyncio.to_thread(submitted, edge), cancelled()
    gone = threading.Event()

    def watch():
        with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as sock:
            sock.sendall(f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            assert b" 200 " in sock.recv(65536)
        gone.set()

    await asyncio.to_thread(watch)
    async with asyncio.timeout(5):
        while cancelled() == before:
            await asyncio.sleep(0.02)
    seen, _ = await asyncio.to_thread(read_all, edge, task_id)
    assert seen[-1]["event"] == "result"


async def test_a_call_that_waits_longer_than_a_stream_may_last_is_told_so_and_the_task_goes_on(edge):
    body = json.dumps({"prompt": "count", "task_id": "patient"}).encode()
    answer = await asyncio.to_thread(lambda: edge.request("POST", "/v1/agents/slow/run", body, **JSON))
    assert (answer.status, answer.details["ErrorInfo"]["reason"]) == (504, "DEADLINE_EXCEEDED")
    seen, _ = await asyncio.to_thread(read_all, edge, "patient")
    assert seen[-1]["event"] == "result"


IDLE_S, SILENT_S = 3, 7
"""When Envoy cuts an idle stream here, and how long the agent has nothing to tell."""
NEVER_S = 1_000.0
BUSY = f"agents: {{default: [{{text: Done., latency_ms: {SILENT_S * 1_000}}}]}}"


def with_short_idle(config):
    """Makes the time short after which idle streams are cut."""
    manager = connections(config)
    manager["stream_idle_timeout"] = f"{IDLE_S}s"
    (everything,) = manager["route_config"]["virtual_hosts"]
    for route in everything["routes"]:
        if "route" in route:
            route["route"]["idle_timeout"] = f"{IDLE_S}s"


@pytest.fixture
async def silent(mesh, tmp_path, monkeypatch, heartbeat_s):
    """An edge with a short idle limit, in front of an agent that thinks for longer than that."""
    monkeypatch.setitem(Feeds.__init__.__kwdefaults__, "heartbeat_s", heartbeat_s)
    process = await mesh.agent(Agent("slow", "Thinks."), script=BUSY)
    targets = {"slow": [process.server.target]}
    envoy = Envoy(tmp_path / "envoy", targets, change=with_short_idle, registry=mesh.target)
    envoy.launch()
    await asyncio.to_thread(envoy.wait)
    yield envoy
    envoy.__exit__()


def read_lines(edge, path, accept):
    """Reads a stream to its end, or to where it is cut, as it is."""
    with edge.opened("GET", path, accept=accept) as response:
        assert response.status == 200
        try:
            return response.read().decode()
        except http.client.IncompleteRead as cut:
            return cut.partial.decode()


def read_web(edge, task_id):
    """Reads the same as gRPC-Web; returns the names of the events that came."""
    request = framed(WatchTaskRequest(task_id=task_id).SerializeToString())
    path, kind = "/agents.v1.TaskService/WatchTask", "application/grpc-web+proto"
    with edge.opened("POST", path, request, content_type=kind) as response:
        try:
            body = response.read()
        except http.client.IncompleteRead as cut:
            body = cut.partial
    return [event.WhichOneof("event") for event in grpc_web_events(body)[0]]


async def read_grpc(edge, task_id):
    """Reads the same by gRPC."""
    names = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        watch = TaskServiceStub(channel).WatchTask(WatchTaskRequest(task_id=task_id))
        with contextlib.suppress(grpc.aio.AioRpcError):
            while event := await watch.read():
                names.append(event.WhichOneof("event"))
    return names


async def read_in_all_forms(edge):
    """Watches one task in every form at once; returns what each brought, and how long it took."""
    task_id = await asyncio.to_thread(submitted, edge)
    started = time.monotonic()
    path = f"/v1/tasks/{task_id}"
    sse, lines, web, names = await asyncio.gather(
        asyncio.to_thread(read_lines, edge, f"{path}/events", "text/event-stream"),
        asyncio.to_thread(read_lines, edge, f"{path}/steps", "application/json"),
        asyncio.to_thread(read_web, edge, task_id),
        read_grpc(edge, task_id),
    )
    return sse, lines, web, names, time.monotonic() - started


@pytest.mark.parametrize("heartbeat_s", [1.0])
async def test_heartbeats_keep_every_form_of_a_stream_open_beyond_the_idle_limit(silent):
    sse, lines, web, names, seconds = await read_in_all_forms(silent)
    assert seconds > SILENT_S - 1 > IDLE_S
    assert "event: result" in sse
    beats = [part for part in sse.splitlines() if part.startswith(":")]
    events = [json.loads(line) for line in lines.splitlines()]
    assert "result" in events[-1]
    assert (web[-1], names[-1]) == ("result", "result")
    least = SILENT_S - IDLE_S
    counts = [len(beats), sum("heartbeat" in one for one in events), web.count("heartbeat"), names.count("heartbeat")]
    assert min(counts) >= least, counts


@pytest.mark.parametrize("heartbeat_s", [NEVER_S])
async def test_without_heartbeats_every_form_of_a_stream_is_cut_at_the_idle_limit(silent):
    sse, lines, web, names, seconds = await read_in_all_forms(silent)
    assert seconds > IDLE_S - 1
    assert "event: result" not in sse
    assert '"result"' not in lines
    assert "result" not in [*web, *names]
    assert all((sse, lines, web, names))
