"""Logs, traces and metrics of a process: in a process of their own, since they are set up once."""

import json
import socket
import subprocess
import sys

import pytest

from meshwright.core import logs, telemetry, tracing
from meshwright.core.errors import SetupError
from meshwright.core.metrics_listener import MetricsListener
from meshwright.core.settings import Settings, child_environment

SERVICE = """
import asyncio, json, logging, sys
import grpc, structlog
from meshwright.core import channel, telemetry, tracing
from meshwright.core.server import Server, bound
from meshwright.core.metrics_listener import MetricsListener
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer, AgentServiceStub
from meshwright.gen.agents.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server as add

log = structlog.get_logger("probe")

class Probe(AgentServiceServicer):
    async def Health(self, request, context):
        password = "hunter2"
        if request.agent_id == "fail":
            raise ValueError("two\\nlines")
        log.info("handled", detail=tracing.current_trace_id())
        return HealthResponse()

async def main():
    settings = Settings(metrics_port=0, drain_s=0, lean_spans=sys.argv[1] == "lean")
    telemetry.configure(settings, "probe", "probe-1")
    server = Server(settings, {"agents.v1.AgentService": bound(add, Probe())})
    async with grpc.aio.insecure_channel(await server.start()) as dialled:
        stub = AgentServiceStub(dialled)
        with tracing.span("outside", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"):
            await channel.unary(stub.Health, HealthRequest(), timeout_s=5)
        await channel.unary(stub.Health, HealthRequest(), timeout_s=5)
        try:
            await channel.unary(stub.Health, HealthRequest(agent_id="fail"), timeout_s=5)
        except Exception as error:
            print(json.dumps({"told": str(error)}))
    log.debug("not at this level")
    structlog.contextvars.bind_contextvars(task_id="t-1")
    log.warning("odd", detail=set, why="line\\nbreak")
    logging.getLogger("some.library").warning("said %s", "this\\nand that")
    tracing.flush()
    await server.stop()

asyncio.run(main())
"""


@pytest.fixture(scope="module", params=["stock", "lean"])
def output(request):
    command = [sys.executable, "-c", SERVICE, request.param]
    ours = child_environment(Settings())
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=True, env=ours)


@pytest.fixture(scope="module")
def events(output):
    lines = [json.loads(line) for line in output.stderr.splitlines()]
    return {line["event"]: line for line in lines} | {"all": lines}


def test_every_event_is_one_line_of_json_that_says_where_it_comes_from(events):
    assert {"metrics_served", "handled", "call_failed", "odd"} <= set(events)
    for line in events["all"]:
        assert (line["service"], line["instance"]) == ("probe", "probe-1")
        assert line["level"]
        assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_left_out(events):
    assert "not at this level" not in events


def test_libraries_warnings_are_events_too(events):
    said = events["said this\nand that"]
    assert (said["logger"], said["level"]) == ("some.library", "warning")


def test_an_event_names_the_trace_that_the_caller_was_in(events):
    handled = [line for line in events["all"] if line["event"] == "handled"]
    assert handled[0]["trace_id"] == handled[0]["detail"] == "ab" * 16
    assert handled[1]["trace_id"] not in ("", "ab" * 16)


def test_an_event_carries_what_was_bound_to_its_context(events):
    assert events["odd"]["task_id"] == "t-1"


def test_a_traceback_holds_no_variables(events, output):
    failed = events["call_failed"]
    assert "ValueError: two\nlines" in failed["exception"]
    assert failed["error_id"] in json.loads(output.stdout)["told"]
    assert "hunter2" not in output.stderr


def test_metrics_are_served_where_a_port_is_chosen(monkeypatch):
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"metrics port {port}"):
            telemetry.configure(Settings(metrics_port=port, tracing=False), "probe", "probe-1")


async def test_metrics_may_be_on_another_address_than_the_service(monkeypatch):
    started = []

    class Kept(MetricsListener):
        def start(self):
            started.append((self, super().start()))

    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(telemetry, "MetricsListener", Kept)
    telemetry.configure(Settings(metrics_port=0, metrics_host="127.0.0.2", tracing=False), "probe", "probe-1")
    ((server, thread),) = started
    assert server.server_address[0] == "127.0.0.2"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_an_address_of_metrics_that_is_none_is_told(monkeypatch):
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with pytest.raises(SetupError, match=r"metrics port 0 on 192\.0\.2\.1 cannot be used: "):
        telemetry.configure(Settings(metrics_port=0, metrics_host="192.0.2.1", tracing=False), "probe", "probe-1")


def test_outside_of_a_trace_there_is_no_trace_id():
    assert tracing.current_trace_id() == ""
    assert tracing.traceparent() == ""


def test_without_tracing_no_interceptor_is_added():
    assert tracing.server_interceptors(Settings(tracing=False)) == []
    assert len(tracing.server_interceptors(Settings())) == 1
    assert tracing.server_interceptors(Settings(lean_spans=True)) == []
