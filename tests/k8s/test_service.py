"""A service passes connections on to pods that are ready, and to nobody else."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from k8s.rehearsal.addresses import Addresses
from k8s.rehearsal.service import Service

PORT = 7070


@pytest.fixture
async def mesh():
    """A service, its address, and three pods that say who they are."""
    addresses = Addresses()
    ready, servers = [], []
    for name in ("a", "b", "c"):
        pod = SimpleNamespace(name=name, address=addresses.new(), port=lambda _: PORT)

        async def answer(reader, writer, name=name):
            while word := await reader.readline():
                writer.write(f"{name} {word.decode()}".encode())
            writer.write(f"{name} ends\n".encode())
            writer.close()

        servers.append(await asyncio.start_server(answer, pod.address, PORT))
        ready.append(pod)
    service = Service(addresses.of("service"), "grpc", lambda: ready)
    await service.start(PORT)
    yield SimpleNamespace(service=service, address=addresses.of("service"), ready=ready, servers=servers)
    await service.stop()
    for server in servers:
        server.close()


async def said(address):
    reader, writer = await asyncio.open_connection(address, PORT)
    try:
        writer.write(b"hello\n")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                return (await reader.readline()).decode()
        return ""
    finally:
        writer.close()


async def test_connections_are_spread_over_pods_that_are_ready(mesh):
    assert {(await said(mesh.address)).split()[0] for _ in range(40)} == {"a", "b", "c"}
    mesh.ready.pop()
    assert {(await said(mesh.address)).split()[0] for _ in range(40)} == {"a", "b"}


async def test_where_nobody_is_ready_the_connection_is_closed(mesh):
    mesh.ready.clear()
    assert not await said(mesh.address)


async def test_a_connection_stays_with_its_pod_and_what_it_says_last_arrives(mesh):
    reader, writer = await asyncio.open_connection(mesh.address, PORT)
    writer.write(b"one\n")
    name = (await reader.readline()).decode().split()[0]
    mesh.ready.clear()
    writer.write(b"two\n")
    assert (await reader.readline()).decode() == f"{name} two\n"
    writer.write_eof()
    async with asyncio.timeout(5):
        assert (await reader.read()).decode() in ("", f"{name} ends\n")
    writer.close()
