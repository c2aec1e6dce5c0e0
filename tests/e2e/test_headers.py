"""Headers that a gRPC server could not read: they end at the edge, and cost nobody else anything."""

import asyncio
import http.client

import grpc
import pytest

from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub

REFUSED = [
    *(("grpc-timeout", value) for value in ("x", "-1S", "1", "", "123456789S", "1S,1S", "1s")),
    *(("any-bin", value) for value in ("A", "AB", "AB==", "AAB=", "AA=", "A===", "AA=A", "****", "-_-_", "AA,AA")),
    ("grpc-encoding", "x"),
    ("grpc-previous-rpc-attempts", "x"),
    ("grpc-previous-rpc-attempts", "-1"),
    ("grpc-trace-bin", "A"),
]
DROPPED = [
    ("grpc-status", "x"),
    ("grpc-retry-pushback-ms", "x"),
    ("grpc-internal-encoding-request", "x"),
    ("grpc-unheard-of", "x"),
    ("lb-cost-bin", "AAAA"),
]
TAKEN = [
    *(("grpc-timeout", value) for value in ("9S", "12345678m", "00000005S", "99999999n", "1H")),
    *(("any-bin", value) for value in ("", "AAAA", "AAA", "AAA=", "AA", "AA==", "AQ", "AAE", "+/+/")),
    ("grpc-encoding", "identity"),
    ("grpc-encoding", "gzip"),
    ("grpc-accept-encoding", "x"),
    ("grpc-previous-rpc-attempts", "3"),
]


def ask(dev, name, value, content_type):
    """Asks for an agent's health, with one header more; returns the statuses of HTTP and of gRPC, and its message."""
    is_grpc = content_type is not None
    headers = {"x-agent-id": "asking", "te": "trailers", "content-type": content_type} if is_grpc else {}
    path = "/agents.v1.AgentService/Health" if is_grpc else "/v1/agents/asking/health"
    connection = http.client.HTTPConnection("127.0.0.1", dev.port, timeout=10)
    try:
        connection.request("POST" if is_grpc else "GET", path, bytes(5) if is_grpc else None, headers | {name: value})
        response = connection.getresponse()
        status, message = response.getheader("grpc-status"), response.getheader("grpc-message") or ""
        body = response.read()
        if is_grpc and status is None and b"asking" in body:
            status = "0"  # in the trailers, which come after a whole answer
        return response.status, status, message
    finally:
        connection.close()


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc-web+proto"])
@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_a_server_could_not_read_is_refused_by_name(dev, name, value, content_type):
    status, code, message = ask(dev, name, value, content_type)
    assert (status, code) == (200, "3")
    assert name in message


@pytest.mark.parametrize(("name", "value"), DROPPED + TAKEN)
def test_what_means_nothing_in_a_request_is_dropped_and_what_can_be_read_passes(dev, name, value):
    status, code, message = ask(dev, name, value, "application/grpc")
    assert (status, code in ("0", "4")) == (200, True), message  # a time of nanoseconds is over at once


@pytest.mark.parametrize(("name", "value"), REFUSED + DROPPED)
def test_headers_of_grpc_do_nothing_in_a_request_of_http(dev, name, value):
    assert ask(dev, name, value, None)[0] == 200


async def test_unreadable_headers_of_one_caller_leave_all_others_alone(dev):
    async def disturb(stop):
        while not stop.is_set():
            for name, value in REFUSED + DROPPED:
                for content_type in ("application/grpc", None):
                    await asyncio.to_thread(ask, dev, name, value, content_type)

    stop = asyncio.Event()
    disturbing = asyncio.create_task(disturb(stop))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{dev.port}") as channel:
        health = AgentServiceStub(channel).Health
        for _ in range(100):
            reply = await health(HealthRequest(agent_id="asking"), metadata=(("x-agent-id", "asking"),), timeout=10)
            assert reply.agent_id == "asking"
            await asyncio.sleep(0.01)
    stop.set()
    await disturbing
