"""The command that images ask for health: right against a real port, quick to start, and safe against any answer."""

import asyncio
import contextlib
import os
import socket
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshwright.core import healthy
from meshwright.core.probes import Probes
from meshwright.core.settings import Settings
from tests.ports import free_ports

HEAVY = {"asyncio", "grpc", "pydantic", "structlog", "google", "meshwright.core.settings", "meshwright.core.errors"}


@pytest.fixture
async def probes():
    opened = Probes("127.0.0.1", 0)
    await opened.start()
    yield opened
    await opened.stop()


async def run(*arguments, **environment):
    """Runs the command; returns its exit code, and what it said on stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshwright.core.healthy", *arguments),
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, said = await process.communicate()
    assert out == b""
    return process.returncode, said.decode()


def port_of(probes):
    return probes.target.rpartition(":")[2]


async def test_the_exit_code_says_whether_new_calls_are_taken(probes):
    port = port_of(probes)
    assert await run(MESHWRIGHT_HEALTH_PORT=port) == (1, f"error: 127.0.0.1:{port} takes no new calls\n")
    assert await run("liveness", MESHWRIGHT_HEALTH_PORT=port) == (0, "")
    probes.is_serving = True
    assert await run(MESHWRIGHT_HEALTH_PORT=port) == (0, "")
    assert await run(MESHWRIGHT_HEALTH_PORT=port, MESHWRIGHT_HEALTH_HOST="0.0.0.0") == (0, "")


async def test_a_name_that_is_not_known_is_not_healthy(probes):
    probes.is_serving = True
    assert await asyncio.to_thread(healthy.serves, "127.0.0.1", int(port_of(probes)), "readiness") is False


async def test_nobody_there_is_told_in_one_line():
    (port,) = free_ports(1)
    code, said = await run(MESHWRIGHT_HEALTH_PORT=str(port))
    assert (code, said) == (1, f"error: nobody answers for health at 127.0.0.1:{port}: Connection refused\n")


@pytest.mark.parametrize("port", ["", "-1", "0", "65536", "seven", "7099 "])
async def test_a_port_that_cannot_be_asked_is_told_in_one_line(port):
    code, said = await run(MESHWRIGHT_HEALTH_PORT=port)
    assert code == 1
    assert said.startswith(f"error: MESHWRIGHT_HEALTH_PORT={port!r}: set it")
    assert said.count("\n") == 1


async def test_other_arguments_are_refused():
    assert await run("readiness") == (1, "usage: python -m meshwright.core.healthy [liveness]\n")


async def test_it_imports_next_to_nothing():
    code = "import sys, meshwright.core.healthy; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    loaded = set((await process.communicate())[0].decode().split())
    assert "meshwright.core.healthy" in loaded
    assert loaded & HEAVY == set()


@given(
    st.sampled_from([None, "", "127.0.0.2", "::1"]),
    st.sampled_from([None, "127.0.0.3", "10.1.2.3"]),
    st.integers(1, 65_535),
)
def test_it_looks_where_settings_have_the_port(health_host, host, port):
    given_ = {"MESHWRIGHT_HEALTH_HOST": health_host, "MESHWRIGHT_HOST": host, "MESHWRIGHT_HEALTH_PORT": str(port)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given_.items():
            patch.delenv(name, raising=False)
            if value is not None:
                patch.setenv(name, value)
        settings = Settings.load()
        assert healthy.place() == (settings.health_host or settings.host, settings.health_port)


@contextlib.contextmanager
def peer(answer):
    """A peer that says some bytes whatever it is asked, and hangs up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def asked(answer):
    with peer(answer) as sock:
        return healthy.answer(sock, time.monotonic() + 5)


GOOD = healthy.frame(healthy.DATA, 0, 1, healthy.SERVING) + healthy.frame(healthy.HEADERS, 5, 1, b"")


@given(st.binary(max_size=2_000))
@example(b"HTTP/1.1 400 Bad Request\r\n\r\n")
@example(healthy.frame(healthy.GOAWAY, 0, 0, bytes(8)))
@example(healthy.frame(healthy.HEADERS, 5, 1, b"trailers alone"))
@example(healthy.frame(healthy.DATA, 1, 1, b""))
@example(b"\xff\xff\xff" + bytes(6))
def test_no_answer_but_the_right_one_is_healthy(answer):
    try:
        said = asked(answer)
    except OSError:
        return
    assert said != healthy.SERVING


@given(st.integers(0, len(GOOD)), st.lists(st.sampled_from([2, 4, 6, 8]), max_size=5))
def test_the_right_one_may_stand_behind_other_frames_and_has_to_be_whole(cut, others):
    between = b"".join(healthy.frame(kind, 0, 0, bytes(8)) for kind in others)
    assert asked(between + GOOD) == healthy.SERVING
    if cut < len(GOOD):
        with pytest.raises(OSError, match="no answer"):
            asked(between + GOOD[:cut])


def test_an_answer_without_end_is_left_at_once():
    with pytest.raises(OSError, match="no answer"):
        asked(healthy.frame(healthy.DATA, 0, 1, bytes(healthy.MOST_BYTES)))


async def test_whoever_says_nothing_is_waited_for_in_bounds(monkeypatch):
    monkeypatch.setattr(healthy, "WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with asyncio.timeout(10):
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(healthy.serves, "127.0.0.1", deaf.getsockname()[1])


async def test_whoever_drips_is_not_waited_for_either(monkeypatch):
    monkeypatch.setattr(healthy, "WITHIN_S", 0.3)

    async def drip(_reader, writer):
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"\0")
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with asyncio.timeout(10):
        with pytest.raises(OSError, match=r"no answer|timed out"):
            await asyncio.to_thread(healthy.serves, "127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()
