"""The readiness list against servers that are hostile, hang, or are no mesh."""

import asyncio
import contextlib
import time

import pytest

from meshwright.cli.edge import Edge
from meshwright.cli.place import Place
from meshwright.cli.readiness import checklist
from meshwright.cli.readiness.checklist import ITEMS, looked_at
from meshwright.cli.readiness.outcome import State
from meshwright.cli.readiness.survey import Survey
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    SetupError,
    TlsRefusedError,
    UnavailableError,
)
from tests.cli.liar import (
    KEY_SHOWN,
    Liar,
    Reply,
    at,
    look,
    raw,
    target,
)


async def hanging(reader, writer):
    while await reader.read(2**16):
        pass


async def frozen(reader, writer):
    if b"GET /health" in (asked := await reader.read(2**16)) or b"GET /openapi.json" in asked:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"status":"ok"}')
    await hanging(reader, writer)


async def dripping(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
        await asyncio.sleep(0)
        await writer.drain()


async def endless_headers(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: " + b"y" * 2**16 + b"\r\n")
        await asyncio.sleep(0)
        await writer.drain()


async def garbage(reader, writer):
    writer.write(bytes(range(256)) * 40)
    await writer.drain()


async def shut(reader, writer):
    await reader.read(10)


HOSTILE = [
    (hanging, "does not answer within"),
    (dripping, "does not answer within"),
    (endless, "answers more than 8 MiB"),
    (endless_headers, "answers what is no HTTP"),
    (garbage, "answers what is no HTTP"),
    (shut, "closes connections without an answer"),
]


@pytest.mark.parametrize(("answer", "seen"), HOSTILE)
async def test_a_hostile_server_costs_neither_time_nor_memory(public, tls, monkeypatch, answer, seen):
    monkeypatch.setattr("meshwright.cli.readiness.peer.REQUEST_S", 0.5 if "within" in seen else 5.0)
    began = time.monotonic()
    async with raw(tls, answer) as url:
        found = await look("contract: mesh", target(url, public.folder))
    assert (found.state, seen in found.seen) == (State.MISSING, True), found
    assert time.monotonic() - began < 20


async def test_a_mesh_that_hangs_is_given_up_as_a_whole(public, tls, monkeypatch):
    monkeypatch.setattr(checklist, "TOTAL_S", 0.5)
    async with raw(tls, frozen) as url:
        began = time.monotonic()
        lines = await looked_at(target(url, public.folder), Stores())
        assert time.monotonic() - began < 20
    assert any(line.outcome.seen == "nothing is known after 0.5 s" for line in lines)
    assert not any(
        line.outcome.state is State.OK for line in lines if line.group != "transport" and line.name != "mesh"
    )


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(404), "/health answers 404"),
        (Reply(200, b"<html>"), "/health answers 200 with something else"),
        (Reply(200, b'{"info": {"title": "Others"}}'), "/health answers 200 with something else"),
        (Reply(200, b"[" * 100_000), "/health answers 200 with something else"),
    ],
)
async def test_a_server_that_is_no_mesh_gets_no_list(public, tls, reply, why):
    liar = Liar(lambda *_: reply)
    async with liar.serving(tls) as url:
        with pytest.raises(UnavailableError, match=f"no mesh is at {url}: {why}; name its edge"):
            await looked_at(target(url, public.folder), Stores())
    assert [request.path for request in liar.seen] == ["/health", "/openapi.json"]
    assert not any(KEY_SHOWN in str(request) for request in liar.seen)


@pytest.mark.parametrize("path", ["/health", "/openapi.json"])
async def test_a_mesh_that_has_lost_one_of_its_pages_is_one(public, path):
    async with Liar(at(path, Reply(503))).serving() as url:
        assert len(await looked_at(target(url, public.folder), Stores())) == len(ITEMS)


async def test_a_server_that_speaks_no_http_gets_no_list(public):
    async with raw(None, garbage) as url:
        with pytest.raises(UnavailableError, match=r"no mesh is at .*: answers what is no HTTP"):
            await looked_at(target(url.replace("https", "http"), public.folder), Stores())


ALERT = b"\x15\x03\x01\x00\x02\x02\x28"
"""By which TLS refuses a handshake."""


@contextlib.asynccontextmanager
async def telling_apart(to_tls, to_plain):
    """A server that answers whoever shakes hands with some bytes, and requests in plain text with others."""

    async def answer(reader, writer):
        writer.write(to_tls if (await reader.read(2**16))[:1] == b"\x16" else to_plain)
        await writer.drain()

    async with raw(None, answer) as url:
        yield url


PLAIN, REFUSED = (f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode() for status in (404, 400))


@pytest.mark.parametrize("to_tls", [b"", REFUSED])
async def test_plain_text_in_place_of_tls_is_one_line(public, to_tls):
    async with telling_apart(to_tls, PLAIN) as url:
        with pytest.raises(TlsRefusedError, match="speaks plain text: write http://, or set MESHWRIGHT_EDGE_TLS_DIR"):
            await looked_at(target(url, public.folder), Stores())


async def test_a_server_of_another_kind_of_tls_gets_its_list(public):
    async with telling_apart(ALERT, REFUSED) as url:
        assert len(await looked_at(target(url, public.folder), Stores())) == len(ITEMS)


def test_an_edge_has_no_path(public):
    for read in (lambda url: Survey(target(url, public.folder), Stores()), Edge):
        with pytest.raises(SetupError, match=r"'http://x:8080/foo' is no URL of an edge: .* without a path"):
            read("http://x:8080/foo")
    assert Place.of_edge("http://[::1]:8080/").address == "[::1]:8080"
    assert Place.of("http://x/prometheus/").prefix == "/prometheus"


@pytest.mark.parametrize("host", ["localhost:9", "doctor.invalid", "xn--" + 70 * "a"])
async def test_where_nobody_is_there_is_no_list(public, host):
    with pytest.raises(UnavailableError, match=f"no mesh is at https://{host}: nobody answers there: [A-Zin]"):
        await looked_at(target(f"https://{host}", public.folder), Stores())
