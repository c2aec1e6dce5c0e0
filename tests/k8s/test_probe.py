"""Probes ask as a kubelet does, and so many answers in a row count."""

import asyncio
import contextlib
import ssl

import pytest

from k8s.rehearsal.probe import Probe
from meshwright.cli.authority import Authority, Wanted
from meshwright.core.errors import SetupError
from meshwright.core.probes import Probes
from meshwright.core.role import Role
from tests.ports import free_ports

HOST = "127.0.0.1"


def probe(**spec):
    return Probe.of(spec, HOST, {"https": spec.pop("number", 0)}, lambda _: None)


async def heard(answers, **spec):
    """Returns what a probe tells of answers that come one after the other."""
    left, told = list(answers), []

    async def ask():
        if not left:
            raise asyncio.CancelledError
        return left.pop(0)

    made = probe(tcpSocket={"port": 1}, periodSeconds=0, **spec)
    watching = Probe(ask, made.delay_s, made.period_s, made.timeout_s, made.failures, made.successes)
    with pytest.raises(asyncio.CancelledError):
        await watching.watch(told.append)
    return told


async def test_three_failures_in_a_row_count_and_one_success():
    assert await heard([True, False, False, True, False, False, False]) == [True, True, False]


async def test_thresholds_are_the_manifests():
    assert await heard([True, False, True, True], successThreshold=2, failureThreshold=1) == [False, True]


async def test_no_answer_in_time_is_a_failure():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    assert not await probe(httpGet={"port": port}, timeoutSeconds=0.2).answer()
    assert await probe(tcpSocket={"port": port}).answer()
    server.close()


async def test_a_port_that_nobody_listens_on_is_a_failure():
    (port,) = free_ports(1)
    for way in ({"tcpSocket": {"port": port}}, {"httpGet": {"port": port}}, {"grpc": {"port": port}}):
        assert not await probe(**way).answer()


@pytest.mark.parametrize(("status", "is_good"), [(200, True), (399, True), (400, False), (503, False)])
async def test_https_is_asked_for_its_status_whatever_its_certificate(tmp_path, status, is_good):
    Authority.make(tmp_path).issue(Wanted(Role.EDGE, "", ()), 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "edge/cert.pem", tmp_path / "edge/key.pem")
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.readline())
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 99\r\n\r\n".encode())
        with contextlib.suppress(OSError):  # the probe goes as soon as it has read the status, and the server stays
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0, ssl=context)
    number = server.sockets[0].getsockname()[1]
    http = {"path": "/health", "port": "https", "scheme": "HTTPS"}
    assert await probe(httpGet=http, number=number).answer() == is_good
    assert asked == [b"GET /health HTTP/1.1\r\n"]
    server.close()


async def test_grpc_is_asked_by_name():
    probes = Probes(HOST, 0)
    await probes.start()
    port = int(probes.target.rpartition(":")[2])
    assert await probe(grpc={"port": port, "service": "liveness"}).answer()
    assert not await probe(grpc={"port": port}).answer()
    probes.is_serving = True
    assert await probe(grpc={"port": port}).answer()
    assert not await probe(grpc={"port": port, "service": "nobody"}).answer()
    await probes.stop()


def test_a_probe_of_another_kind_is_refused():
    with pytest.raises(SetupError, match="telnet"):
        probe(telnet={})
