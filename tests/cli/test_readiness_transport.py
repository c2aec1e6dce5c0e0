"""The readiness list and the way there: certificates, versions of TLS, plain text, and where a key must not go."""

import asyncio
import contextlib
import ssl
import warnings

import pytest

from meshwright.cli.authority import Authority, Wanted
from meshwright.cli.readiness.checklist import ITEMS, line_of, looked_at
from meshwright.cli.readiness.outcome import State
from meshwright.cli.readiness.survey import Survey
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    UnavailableError,
)
from meshwright.core.role import Role
from tests.cli.liar import (
    KEY_SHOWN,
    Liar,
    Reply,
    at,
    look,
    shown,
    target,
)
from tests.e2e.checked import public_authority


async def test_a_server_without_tls_lacks_all_of_it_and_never_sees_the_key(public):
    liar = Liar()
    async with liar.serving() as url:
        lines = await looked_at(target(url, public.folder), Stores())
    transport = [line.outcome for line in lines if line.group == "transport"]
    assert [one.state for one in transport] == [State.MISSING] * 5
    assert liar.seen
    assert not any(KEY_SHOWN in str(request) for request in liar.seen)


async def test_a_server_that_is_not_trusted_never_sees_the_key(public, tls, tmp_path):
    other, liar = Authority.make(tmp_path), Liar()
    async with liar.serving(tls) as url:
        lines = await looked_at(target(url, other.folder), Stores())
    assert liar.seen == []
    (found,) = [line.outcome for line in lines if line.name == "certificate"]
    assert found.seen.startswith("its certificate is not trusted: ")


async def test_nobody_is_followed_elsewhere(public, tls):
    other = Liar()
    async with other.serving(tls) as there:
        moved = Liar(lambda request, _: Reply(307, b"", {"location": f"{there}{request.path}"}))
        async with moved.serving(tls) as url:
            with pytest.raises(UnavailableError, match="/health answers 307"):
                await looked_at(target(url, public.folder), Stores())
            survey = Survey(target(url, public.folder), Stores())
            found = [await line_of(item, survey, asyncio.get_running_loop().time() + 20) for item in ITEMS]
    assert other.seen == []
    assert not {line.name for line in found if line.outcome.state is State.OK} - {
        "certificate", "TLS", "plain text", "HTTP/2", "reflection", "internal calls"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("days", "hosts", "seen"),
    [
        (13, ("localhost",), "it expires in 12 days"),
        (-1, ("localhost",), "certificate has expired"),
        (90, ("elsewhere.example",), "Hostname mismatch"),
    ],
)
async def test_a_certificate_that_is_no_good_is_told(tmp_path, days, hosts, seen):
    made = public_authority(tmp_path)
    made.issue(Wanted(Role.GATEWAY, hosts=hosts), days)
    async with Liar().serving(shown(made.folder / Role.GATEWAY)) as url:
        found = await look("transport: certificate", target(url.replace("localhost", "localhost"), made.folder))
    assert (found.state, seen in found.seen) == (State.MISSING, True), found


async def test_a_certificate_of_development_is_told(tmp_path):
    made = Authority.make(tmp_path)
    made.issue(Wanted(Role.EDGE, hosts=("localhost",)), 90)
    async with Liar().serving(shown(made.folder / Role.EDGE)) as url:
        found = await look("transport: certificate", target(url, made.folder))
    assert (found.state, found.seen) == (State.MISSING, "it is of a development authority")


async def test_old_tls_is_told(public):
    old = shown(public.folder / Role.EDGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with Liar().serving(old) as url:
        found = await look("transport: TLS", target(url, public.folder))
    assert (found.state, found.seen) == (State.MISSING, "it still takes TLSv1.1")


async def test_a_server_without_http2_is_told(public):
    async with Liar().serving(shown(public.folder / Role.EDGE, "http/1.1")) as url:
        found = await look("transport: HTTP/2", target(url, public.folder))
    assert (found.state, found.seen) == (State.MISSING, "it agrees on http/1.1")


@contextlib.asynccontextmanager
async def both(tls_url, plain_url):
    """One port for TLS and for plain text: whoever begins with a handshake gets the one, all others the other."""

    async def passed(reader, writer):
        first = await reader.read(2**16)
        port = int((tls_url if first[:1] == b"\x16" else plain_url).rpartition(":")[2])
        there, upstream = await asyncio.open_connection("127.0.0.1", port)
        upstream.write(first)
        await asyncio.gather(copied(reader, upstream), copied(there, writer))

    async def copied(source, sink):
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        sink.close()

    server = await asyncio.start_server(passed, "127.0.0.1", 0)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("location", "state"), [("", State.MISSING), ("http://x/", State.MISSING), ("https://x/", State.OK)]
)
async def test_plain_text_beside_tls_is_told_unless_it_points_to_tls(public, tls, location, state):
    plain = Liar(at("/health", Reply(301, b"", {"location": location})) if location else None)
    async with Liar().serving(tls) as secured, plain.serving() as other, both(secured, other) as url:
        found = await look("transport: plain text", target(url, public.folder))
    assert found.state is state, found
