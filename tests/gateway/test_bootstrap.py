"""Envoy's bootstrap: what is committed is what is rendered, and the real Envoy accepts it."""

import http.client
import json
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from meshwright.core.errors import SetupError
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.clusters import LIMITS, static_cluster
from meshwright.gateway.config import CDS, DESCRIPTORS
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.filters import SERVICES
from meshwright.gateway.listeners import edge_listener
from meshwright.gateway.settings import GatewaySettings
from tests.ports import free_ports

REPO = Path(__file__).parents[2]


def test_the_committed_bootstrap_is_the_rendered_one():
    rendered = json.dumps(bootstrap.render(GatewaySettings(port=8082)), indent=2) + "\n"
    assert (REPO / "gateway/envoy.json").read_text() == rendered


def test_envoy_accepts_the_committed_bootstrap(tmp_path):
    (tmp_path / envoy.BOOTSTRAP).write_text((REPO / "gateway/envoy.json").read_text())
    descriptors = REPO / "gen/meshwright/gen" / DESCRIPTORS
    (tmp_path / DESCRIPTORS).write_bytes(descriptors.read_bytes())
    EnvoyFiles(tmp_path).update({})
    command = [*envoy.command(), "--mode", "validate"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


async def test_a_refused_bootstrap_says_what_envoy_says(tmp_path):
    (tmp_path / DESCRIPTORS).write_bytes(b"")
    EnvoyFiles(tmp_path).update({})
    config = bootstrap.render(GatewaySettings(port=8082)) | {"surprise": 1}
    with pytest.raises(SetupError, match="Envoy refuses its configuration"):
        await envoy.prepare(tmp_path, config)


async def test_a_bootstrap_is_validated_once(tmp_path):
    descriptors = REPO / "gen/meshwright/gen" / DESCRIPTORS
    (tmp_path / DESCRIPTORS).write_bytes(descriptors.read_bytes())
    EnvoyFiles(tmp_path).update({})
    config = bootstrap.render(GatewaySettings(port=8082))
    await envoy.prepare(tmp_path, config)
    (tmp_path / CDS).unlink()  # would be refused if it were looked at again
    await envoy.prepare(tmp_path, config)


def test_every_service_with_paths_is_transcoded():
    from google.api import annotations_pb2
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files = FileDescriptorSet.FromString((REPO / "gen/meshwright/gen" / DESCRIPTORS).read_bytes())
    services = {f"{file.package}.{service.name}" for file in files.file for service in file.service}
    with_paths = {
        f"{file.package}.{service.name}"
        for file in files.file
        for service in file.service
        for method in service.method
        if method.options.HasExtension(annotations_pb2.http)
    }
    assert with_paths == set(SERVICES)
    assert with_paths <= services


def test_headers_that_only_the_mesh_may_set_are_stripped():
    edge = edge_listener(GatewaySettings())
    manager = edge["filter_chains"][0]["filters"][0]["typed_config"]
    mutations = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    removed = {mutation["remove"] for mutation in mutations}
    assert {"x-mesh-grant-bin", "x-mesh-tenant", "x-mesh-principal", "x-agent-cluster"} <= removed


@pytest.fixture
def run_envoy(tmp_path):
    """Runs a real Envoy on a bootstrap, until its port answers."""
    started = []

    def run(config, port):
        descriptors = REPO / "gen/meshwright/gen" / DESCRIPTORS
        (tmp_path / DESCRIPTORS).write_bytes(descriptors.read_bytes())
        (tmp_path / envoy.BOOTSTRAP).write_text(json.dumps(config))
        EnvoyFiles(tmp_path).update({})
        started.append(subprocess.Popen(envoy.command(), cwd=tmp_path, stderr=subprocess.DEVNULL))
        ends = time.monotonic() + 15
        while not is_answering(port):
            assert time.monotonic() < ends
            time.sleep(0.05)

    yield run
    for process in started:
        process.kill()
        process.wait()


def is_answering(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_call_beyond_what_a_cluster_may_have_open_is_429(run_envoy, monkeypatch):
    monkeypatch.setitem(LIMITS, "max_requests", 1)
    edge, internal, service = free_ports(3)
    settings = GatewaySettings(port=service, edge_port=edge, internal_port=internal)
    with socket.create_server(("127.0.0.1", service)):  # takes calls and never answers
        run_envoy(bootstrap.render(settings), edge)
        first, second = (http.client.HTTPConnection("127.0.0.1", edge, timeout=5) for _ in range(2))
        first.request("GET", "/ready")
        time.sleep(0.3)
        second.request("GET", "/ready")
        answer = second.getresponse()
        status = json.loads(answer.read())
        first.close()
        second.close()
    assert (answer.status, answer.getheader("retry-after")) == (429, "1")
    assert (status["code"], status["details"][0]["reason"]) == (8, "OVERLOADED")
    assert status["details"][0]["metadata"]["limit"] == "route"


@pytest.mark.parametrize(
    ("target", "kind", "host", "port"),
    [
        ("127.0.0.1:7070", "STATIC", "127.0.0.1", 7070),
        ("[::1]:7070", "STATIC", "::1", 7070),
        ("registry.mesh:80", "STRICT_DNS", "registry.mesh", 80),
    ],
)
def test_a_service_is_reached_by_address_or_by_name(target, kind, host, port):
    cluster = static_cluster("registry", target)
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert (cluster["type"], address["address"], address["port_value"]) == (kind, host, port)


@pytest.mark.parametrize("cluster", ["registry", "gateway"])
def test_the_edge_tells_that_a_process_of_the_mesh_is_away(run_envoy, cluster):
    edge, internal, gateway, registry = free_ports(4)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{gateway if cluster == 'gateway' else registry}")
    server.start()
    settings = GatewaySettings(port=gateway, edge_port=edge, internal_port=internal, registry=f"127.0.0.1:{registry}")
    run_envoy(bootstrap.render(settings), edge)
    other = "registry" if cluster == "gateway" else "gateway"
    until_healthy(internal, {cluster: "1", other: "0"})
    server.stop(None).wait()
    until_healthy(internal, {cluster: "0", other: "0"})


def until_healthy(port, wanted):
    """Waits until Envoy's metrics tell how many instances of clusters take calls."""
    ends = time.monotonic() + 15
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        told = dict(re.findall(r'envoy_cluster_membership_healthy\{envoy_cluster_name="(\w+)"\} (\d+)', text))
        if wanted.items() <= told.items():
            return
        assert time.monotonic() < ends, told
        time.sleep(0.1)


def test_a_process_that_takes_no_new_calls_is_still_asked(run_envoy):
    edge, internal, gateway = free_ports(3)
    server = grpc.server(ThreadPoolExecutor(2))
    health = HealthServicer()
    health.enter_graceful_shutdown()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"127.0.0.1:{gateway}")
    server.start()
    run_envoy(bootstrap.render(GatewaySettings(port=gateway, edge_port=edge, internal_port=internal)), edge)
    until_healthy(internal, {"gateway": "0"})
    connection = http.client.HTTPConnection("127.0.0.1", edge, timeout=5)
    connection.request("GET", "/ready")
    status = json.loads(connection.getresponse().read())
    connection.close()
    server.stop(None).wait()
    assert status["code"] == 12  # UNIMPLEMENTED: it was asked, and serves nothing but health
