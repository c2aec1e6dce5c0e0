"""Envoy's metrics: what a scraper may ask, who else may not, and that callers write nothing into them."""

import contextlib
import http.client
import re
import socket
import time

import pytest

from meshwright.gateway.internal import MOST_CONNECTIONS
from meshwright.gateway.settings import GatewaySettings
from tests.e2e.edges import Edge, Envoy

SECRET = "canary4711"
FRAME = bytes(5)
"""An empty message of gRPC."""


@pytest.fixture
def edge(tmp_path):
    with Edge(tmp_path / "envoy") as opened:
        yield opened


def asked(edge, path="/metrics", method="GET", host="127.0.0.1"):
    """Asks the listener for metrics; returns status and body."""
    connection = http.client.HTTPConnection(host, edge.settings.internal_port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def value(text, name, labels=""):
    """Returns the value of a series; 0: it is not there yet."""
    found = re.search(rf"^{name}{{{labels}}} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/metrics"),
        ("HEAD", "/metrics"),
        ("GET", "/metrics?filter=."),
        ("GET", "/metrics?&filter=(a*)*$&format=json"),
        ("GET", "/metrics?"),
        ("GET", "/metrics/../config_dump"),
        ("GET", "/metrics#x"),
        ("GET", "//metrics"),
        ("GET", "/"),
        *(("GET", f"/{name}") for name in ("stats", "stats/prometheus", "config_dump", "clusters", "certs")),
        *(("POST", f"/{name}") for name in ("quitquitquit", "drain_listeners", "logging?level=trace")),
    ],
)
def test_a_scraper_reads_metrics_and_nothing_else(edge_of_module, method, path):
    status, body = asked(edge_of_module, path, method)
    assert status in {400, 404}
    assert "envoy_" not in body
    assert asked(edge_of_module)[0] == 200


@pytest.fixture(scope="module")
def edge_of_module(tmp_path_factory):
    with Edge(tmp_path_factory.mktemp("asked") / "envoy") as opened:
        yield opened


def test_the_edge_itself_has_no_metrics(edge_of_module):
    answer = edge_of_module.request("GET", "/metrics")
    assert answer.status == 404
    assert b"envoy_" not in answer.body


def test_what_callers_say_makes_no_series(edge):
    grpc = {"content-type": "application/grpc", "te": "trailers"}
    services = ("agents.v1.AgentService", "agents.v1.TaskService", "grpc.health.v1.Health", "gateway.v1.EdgeService")
    for service in (*services, f"agents.v1.{SECRET}", SECRET):
        answer = edge.request("POST", f"/{service}/{SECRET}", FRAME, **grpc)
        assert (answer.status, answer.headers["grpc-status"]) == (200, "12")
    edge.request("POST", f"/agents.v1.AgentService/{SECRET}", FRAME, **{"content-type": "application/grpc-web+proto"})
    edge.request("GET", f"/v1/agents/{SECRET}/health?{SECRET}={SECRET}")
    named = ("authorization", "x-api-key", "x-mesh-tenant", "x-envoy-upstream-alt-stat-name", "x-agent-id", SECRET)
    edge.request("GET", "/v1/agents/orchestrator/health", **dict.fromkeys(named, SECRET))
    edge.post("/run", {"prompt": SECRET, "task_id": SECRET, "session_id": SECRET})
    assert SECRET not in asked(edge)[1]


def test_calls_are_counted_by_the_methods_of_the_contract(edge):
    edge.post("/run", {"prompt": "do"})
    labels = 'envoy_grpc_bridge_method="RunTask",envoy_grpc_bridge_service="agents_v1_AgentService"'
    assert f"envoy_cluster_grpc_0{{{labels}" in asked(edge)[1]


def test_connections_beyond_the_bound_are_closed_and_the_rest_is_answered(edge):
    place = ("127.0.0.1", edge.settings.internal_port)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(MOST_CONNECTIONS)]
        for one in held:
            one.sendall(b"GET /metrics HTTP/1.1\r\nhost: m\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 200"
        further = stack.enter_context(socket.create_connection(place, timeout=10))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            further.sendall(b"GET /metrics HTTP/1.1\r\nhost: m\r\n\r\n")
            assert further.recv(1) == b""
        assert edge.request("GET", "/v1/agents/orchestrator/health").status == 200


def test_an_edge_without_a_connection_left_is_still_seen(tmp_path):
    with Edge(tmp_path / "envoy", max_connections=2) as edge, contextlib.ExitStack() as stack:
        ends = time.monotonic() + 20
        while value(asked(edge)[1], "envoy_http_downstream_cx_active", 'envoy_http_conn_manager_prefix="edge"') < 2:
            assert time.monotonic() < ends
            stack.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=10))
        with pytest.raises((OSError, http.client.HTTPException)):
            edge.request("GET", "/health")
        text = asked(edge)[1]
    assert value(
        text, "envoy_listener_downstream_global_cx_overflow", f'envoy_listener_address="127.0.0.1_{edge.port}"'
    )


def test_an_edge_without_memory_left_is_still_seen(tmp_path):
    envoy = Envoy(tmp_path / "envoy", {"gone": ["127.0.0.1:9"]}, heap_mb=1)
    envoy.launch()
    try:
        ends = time.monotonic() + 20
        pressure = 0
        while pressure < 100:
            assert time.monotonic() < ends
            with contextlib.suppress(OSError, http.client.HTTPException):  # it starts
                pressure = value(asked(envoy)[1], "envoy_overload_envoy_resource_monitors_fixed_heap_pressure")
        with socket.create_connection(("127.0.0.1", envoy.port), timeout=1) as caller:  # by the kernel alone
            caller.sendall(b"GET /v1/agents/gone/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            with pytest.raises((TimeoutError, ConnectionResetError)):
                caller.recv(1)
        assert asked(envoy)[0] == 200
    finally:
        envoy.__exit__()


def test_metrics_are_on_loopback_unless_another_address_is_chosen(tmp_path):
    assert GatewaySettings().internal_host == "127.0.0.1"
    with Edge(tmp_path / "envoy", internal_host="127.0.0.2") as edge:
        assert asked(edge, host="127.0.0.2")[0] == 200
        with pytest.raises(ConnectionRefusedError):
            asked(edge)
