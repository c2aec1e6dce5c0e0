"""The proxy: each fault does to a connection what it says, and nothing once it is lifted."""

import asyncio
import contextlib
import time

import pytest

from meshwright.cli import ports
from meshwright.cli.chaos.proxy import DELAY_S, Proxy

HOST = "127.0.0.1"


@pytest.fixture
async def proxy():
    """A proxy before a server that says everything twice."""

    async def answer(reader, writer):
        with contextlib.suppress(OSError):
            while said := await reader.read(100_000):
                writer.write(said * 2)
                await writer.drain()
        writer.close()

    taken: set[int] = set()
    target = ports.reserve(HOST, taken)
    server = await asyncio.start_server(answer, HOST, target)
    opened = Proxy(target, ports.reserve(HOST, taken))
    await opened.start()
    yield opened
    await opened.stop()
    server.close()


@pytest.fixture
async def client(proxy):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    yield reader, writer
    writer.transport.abort()


async def asked(client, text=b"a", patience_s=5.0):
    reader, writer = client
    started = time.monotonic()
    writer.write(text)
    async with asyncio.timeout(patience_s):
        answer = await reader.readexactly(2 * len(text))
    assert answer == text * 2
    return time.monotonic() - started


async def test_without_a_fault_bytes_pass(client):
    assert await asked(client) < DELAY_S
    await asked(client, b"x" * 100_000)


async def test_a_delay_is_met_in_both_directions(proxy, client):
    proxy.set("delay")
    assert await asked(client) >= 2 * DELAY_S


async def test_a_black_hole_holds_everything_back_until_it_is_lifted(proxy, client):
    proxy.set("blackhole")
    with pytest.raises(TimeoutError):
        await asked(client, patience_s=0.3)
    proxy.set("")
    async with asyncio.timeout(5):
        assert await client[0].readexactly(2) == b"aa"


async def test_a_reset_ends_old_and_new_connections_and_only_as_long_as_it_lasts(proxy, client):
    await asked(client)
    proxy.set("reset")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asked(client)
    other = await asyncio.open_connection(HOST, proxy.port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asked(other)
    proxy.set("")
    other = await asyncio.open_connection(HOST, proxy.port)
    await asked(other)
    other[1].transport.abort()


async def test_a_half_closed_connection_says_no_more_but_still_listens(proxy, client):
    await asked(client)
    proxy.set("half-close")
    async with asyncio.timeout(5):
        assert await client[0].read() == b""
    client[1].write(b"still sent")
    await client[1].drain()


async def test_a_throttle_lets_a_kilobyte_a_second_through(proxy, client):
    proxy.set("throttle")
    assert await asked(client, b"x" * 300) >= 0.5
    proxy.set("")
    assert await asked(client, b"x" * 10_000) < 2
