"""What can be seen of the edge: spans of its part of a trace, one line a request, metrics."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from meshwright.gateway.listeners import span_target, tracing
from meshwright.gateway.settings import GatewaySettings
from tests.e2e.edges import JSON, Edge

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "a-word-that-nobody-may-read"


class Collector:
    """Takes spans."""

    def __init__(self):
        self.spans = []

    def service(self, details):
        assert details.method == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        return grpc.unary_unary_rpc_method_handler(self.export)

    def export(self, request, context):
        sent = ExportTraceServiceRequest.FromString(request)
        self.spans += [span for some in sent.resource_spans for scope in some.scope_spans for span in scope.spans]
        return ExportTraceServiceResponse().SerializeToString()

    def of(self, trace_id):
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


@pytest.fixture
def collector():
    """A collector of spans, and its endpoint."""
    taken = Collector()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[taken])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield taken, f"http://127.0.0.1:{port}"
    server.stop(0)


def test_the_edge_is_a_part_of_its_caller_s_trace(tmp_path, collector):
    taken, endpoint = collector
    with Edge(tmp_path / "envoy", otlp_endpoint=endpoint) as edge:
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE}-{SPAN}-01")
        parent = edge.agent.headers["traceparent"].split("-")
        ends = time.monotonic() + 15
        while len(taken.of(TRACE)) < 2:
            assert time.monotonic() < ends
            time.sleep(0.05)
    ours = {span.span_id.hex(): span for span in taken.of(TRACE)}
    assert parent[1] == TRACE
    upstream = ours[parent[2]]
    assert ours[upstream.parent_span_id.hex()].parent_span_id.hex() == SPAN


def test_a_trace_that_its_caller_does_not_keep_is_not_kept_here(tmp_path, collector):
    taken, endpoint = collector
    with Edge(tmp_path / "envoy", otlp_endpoint=endpoint) as edge:
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE}-{SPAN}-00")
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE[::-1]}-{SPAN}-01")
        ends = time.monotonic() + 15
        while not taken.of(TRACE[::-1]):
            assert time.monotonic() < ends
            time.sleep(0.05)
    assert taken.of(TRACE) == []


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({}, ""),
        ({"otlp_endpoint": "http://collector:4317"}, "collector:4317"),
        ({"otlp_endpoint": "http://[::1]"}, "[::1]:4317"),
        ({"otlp_endpoint": "https://collector:4317"}, ""),
        ({"otlp_endpoint": "http://collector:4317", "tracing": False}, ""),
    ],
)
def test_spans_leave_only_where_an_endpoint_is_set(settings, target):
    chosen = GatewaySettings(**settings)
    assert span_target(chosen) == target
    assert bool(tracing(chosen)) == bool(target)


def test_a_request_is_a_line_without_what_is_nobody_s_business(tmp_path):
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "user-agent": "u" * 500, "cookie": SECRET}
    with Edge(tmp_path / "envoy") as edge:
        body = json.dumps({"prompt": SECRET}).encode()
        answer = edge.request("POST", f"/run?{SECRET}=1", body, **(JSON | headers))
        edge.request("GET", f"/v1/agents/orchestrator/health?agent_id={SECRET}", traceparent=f"00-{TRACE}-{SPAN}-01")
        edge.end()
        text = (edge.folder / "access.log").read_text()
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines()]
    run = next(line for line in lines if line["path"] == "/run")
    assert run["request_id"] == answer.headers["x-request-id"]
    assert run["user_agent"] == "u" * 200
    assert (run["method"], run["status"], run["bytes_in"]) == ("POST", 400, len(body))
    assert lines[-1]["traceparent"] == f"00-{TRACE}-{SPAN}-01"


def test_metrics_are_for_this_machine_alone_and_count_refusals(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=1) as edge:
        while edge.request("GET", "/v1/agents/orchestrator/health").status != 429:
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.settings.internal_port}/metrics", timeout=5) as response:
            text = response.read().decode()
    name, kind = "envoy_http_local_rate_limit_rate_limited", 'envoy_local_http_ratelimit_prefix="address_limit"'
    counted = next(line for line in text.splitlines() if line.startswith(name) and kind in line)
    assert int(counted.rpartition(" ")[2]) > 0
