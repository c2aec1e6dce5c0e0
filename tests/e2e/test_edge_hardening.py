"""What Envoy's makers advise for an edge: each row of the table in docs/edge.md is what is rendered; drain drains."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from meshwright.core.errors import UnavailableError
from meshwright.core.settings import child_environment
from meshwright.gateway import bootstrap
from meshwright.gateway.discovery import cluster, outlier_detection
from meshwright.gateway.drain import drain, unchunked
from meshwright.gateway.limits import overload_manager
from meshwright.gateway.listeners import NOBODY
from meshwright.gateway.settings import GatewaySettings
from tests.e2e.edges import LARGE, Edge, connections

PAGE = Path(__file__).parents[2] / "docs/edge.md"
CONFIG = bootstrap.render(GatewaySettings())
MANAGER = connections(CONFIG)
LISTENER, METRICS = CONFIG["static_resources"]["listeners"]
ROUTES = MANAGER["route_config"]["virtual_hosts"][0]["routes"]
ACTIONS = [route["route"] for route in ROUTES if "route" in route]
AGENT = cluster("agent-x")
ORDER = [one["name"] for one in MANAGER["http_filters"]]


def monitors(settings):
    return {
        one["name"].rpartition(".")[2]: one["typed_config"] for one in overload_manager(settings)["resource_monitors"]
    }


def thresholds():
    actions = overload_manager(GatewaySettings())["actions"]
    return {one["name"].rpartition(".")[2]: one["triggers"][0]["threshold"]["value"] for one in actions}


ROWS = {
    "admin interface": lambda: CONFIG["admin"]["address"] == {"pipe": {"path": "admin.sock", "mode": 0o600}},
    "metrics": lambda: (
        METRICS["address"]["socket_address"]["address"] == "127.0.0.1"
        and METRICS["filter_chains"][0]["filters"][0]["typed_config"]["max_connections"] == 16
        and (METRICS["ignore_global_conn_limit"], METRICS["bypass_overload_manager"]) == (True, True)
    ),
    "names in metrics": lambda: ORDER.index("rules") < ORDER.index("envoy.filters.http.grpc_stats"),
    "memory": lambda: (
        monitors(GatewaySettings(heap_mb=100))["fixed_heap"]["max_heap_size_bytes"] == 100 * 2**20
        and "fixed_heap" not in monitors(GatewaySettings(heap_mb=0))
        and thresholds() == {"shrink_heap": 0.85, "stop_accepting_requests": 0.92, "stop_accepting_connections": 0.95}
    ),
    "connections": lambda: (
        monitors(GatewaySettings(max_connections=7))["global_downstream_max_connections"][
            "max_active_downstream_connections"
        ]
        == 7
    ),
    "buffers of a connection": lambda: LISTENER["per_connection_buffer_limit_bytes"] == 2**20,
    "HTTP/2 streams": lambda: MANAGER["http2_protocol_options"]["max_concurrent_streams"] == 256,
    "HTTP/2 windows": lambda: (
        MANAGER["http2_protocol_options"]["initial_stream_window_size"] == 2**16
        and MANAGER["http2_protocol_options"]["initial_connection_window_size"] == 2**20
    ),
    "HTTP/2 resets": lambda: (
        CONFIG["layered_runtime"]["layers"][0]["static_layer"]["overload.premature_reset_total_stream_count"] == 500
    ),
    "calls at a time": lambda: (
        CONFIG["layered_runtime"]["layers"][0]["static_layer"]["http.max_requests_per_io_cycle"] == 10
    ),
    "dead connections": lambda: (
        MANAGER["http2_protocol_options"]["connection_keepalive"] == {"interval": "30s", "timeout": "10s"}
    ),
    "headers": lambda: (
        MANAGER["max_request_headers_kb"] == 12 and MANAGER["common_http_protocol_options"]["max_headers_count"] == 100
    ),
    "headers with underscores": lambda: (
        MANAGER["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
    ),
    "headers of the mesh": lambda: (
        {"remove": "x-mesh-tenant"} in (MANAGER["early_header_mutation_extensions"][0]["typed_config"]["mutations"])
    ),
    "paths": lambda: (
        MANAGER["normalize_path"]
        and MANAGER["merge_slashes"]
        and MANAGER["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    ),
    "address of the caller": lambda: (
        MANAGER["use_remote_address"]
        and MANAGER["xff_num_trusted_hops"] == 0
        and connections(bootstrap.render(GatewaySettings(trusted_hops=2)))["xff_num_trusted_hops"] == 2
    ),
    "callers inside": lambda: MANAGER["internal_address_config"] == {"unix_sockets": False, "cidr_ranges": NOBODY},
    "bodies": lambda: (
        ORDER.index("envoy.filters.http.buffer") < ORDER.index("envoy.filters.http.grpc_json_transcoder")
        and MANAGER["http_filters"][ORDER.index("envoy.filters.http.buffer")]["typed_config"]["max_request_bytes"]
        == 4 * 2**20
    ),
    "time for headers": lambda: MANAGER["request_headers_timeout"] == "10.0s",
    "time for a request": lambda: MANAGER["request_timeout"] == "30.0s",
    "time of a stream": lambda: all(
        one["max_stream_duration"] == {"max_stream_duration": "3600.0s", "grpc_timeout_header_max": "3600.0s"}
        for one in ACTIONS
    ),
    "idle streams": lambda: (
        MANAGER["stream_idle_timeout"] == "300s" and all(one["idle_timeout"] == "300s" for one in ACTIONS)
    ),
    "idle connections": lambda: MANAGER["common_http_protocol_options"]["idle_timeout"] == "3600s",
    "retries": lambda: all(one["retry_policy"]["retry_on"] == "connect-failure,refused-stream" for one in ACTIONS),
    "circuit breakers": lambda: AGENT.circuit_breakers.thresholds[0].max_requests == 10_000,
    "health checks": lambda: (
        AGENT.health_checks[0].grpc_health_check is not None
        and AGENT.common_lb_config.healthy_panic_threshold.value == 0
    ),
    "news of health": lambda: AGENT.common_lb_config.update_merge_window == timedelta(milliseconds=10),
    "outlier detection": lambda: (
        AGENT.outlier_detection == outlier_detection()
        and outlier_detection().consecutive_local_origin_failure == 3
        and outlier_detection().enforcing_consecutive_gateway_failure == 0
    ),
    "draining": lambda: ORDER.index("envoy.filters.http.health_check") < ORDER.index("rules"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_table_is_what_is_rendered(row):
    assert ROWS[row]()


def test_the_table_has_these_rows():
    section = PAGE.read_text().partition("\n## Hardening\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+?) \|", section, re.MULTILINE)
    assert rows[1:] == list(ROWS)


@pytest.fixture
def edge(tmp_path):
    with Edge(tmp_path / "envoy") as running:
        yield running


def test_a_large_answer_passes(edge):
    answer = edge.post("/run", {"prompt": "large"})
    assert (answer.status, len(answer.json["output"])) == (200, LARGE)


def test_draining_lets_open_calls_end_and_takes_nothing_new(edge):
    done, began = [], threading.Event()

    def call():
        began.set()
        done.append(edge.post("/run", {"prompt": "wait"}, **{"x-request-timeout": "2"}).status)

    calling = threading.Thread(target=call)
    calling.start()
    began.wait(5)
    while not edge.agent.open:
        time.sleep(0.01)
    assert asyncio.run(drain(edge.folder, 0.3)) == 1
    health = edge.request("GET", "/health")
    assert (health.status, health.details["ErrorInfo"]["reason"]) == (503, "UNAVAILABLE")
    assert health.headers["connection"] == "close"
    assert asyncio.run(drain(edge.folder, 10)) == 0
    calling.join(10)
    assert done == [504]  # its own deadline, and no earlier


def test_an_edge_without_calls_stays_until_all_have_heard_that_it_goes(edge):
    answers = []

    async def late():
        draining = asyncio.create_task(drain(edge.folder, 30, notice_s=1))
        await asyncio.sleep(0.3)
        answers.append(await asyncio.to_thread(edge.post, "/run", {"prompt": "late"}))
        return await draining

    started = time.monotonic()
    assert asyncio.run(late()) == 0
    assert 1 <= time.monotonic() - started < 30
    assert [answer.status for answer in answers] == [200]


def test_the_command_drains_the_envoy_of_its_folder(edge, tmp_path):
    command = [sys.executable, "-m", "meshwright.gateway.drain"]
    settings = GatewaySettings(folder=str(edge.folder), drain_s=1)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=child_environment(settings), check=False
    )
    assert (done.returncode, done.stdout) == (0, "drained: 0 calls are still open\n")
    assert edge.request("GET", "/health").status == 503
    missing = child_environment(GatewaySettings(folder=str(tmp_path)))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=missing, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Envoy answers at ")


async def test_without_an_envoy_there_is_nothing_to_drain(tmp_path):
    with pytest.raises(UnavailableError, match="no Envoy answers"):
        await drain(tmp_path, 1)


def test_chunks_are_put_together():
    assert unchunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == b"abcde"
