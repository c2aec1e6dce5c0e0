"""The mesh's own store: one process on its files, whatever an earlier mesh left behind."""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio as redis

from meshwright.cli import mesh as mesh_module
from meshwright.cli import ports
from meshwright.cli.mesh import Mesh, MeshPlan, end_orphan
from meshwright.core.errors import SetupError
from meshwright.core.valkey import EmbeddedValkey

HOST = "127.0.0.1"


@pytest.fixture
async def start_store(tmp_path):
    """Starts the store of a mesh on the test's folder."""
    started = []

    async def start(store_port):
        (tmp_path / "logs").mkdir(exist_ok=True)
        plan = MeshPlan(port=0, data=tmp_path, docs=None, model="offline", store_port=store_port)
        mesh = Mesh(plan, None, print)
        started.append(mesh)
        await mesh._start_store()
        return mesh

    yield start
    for mesh in started:
        await mesh.stop()


@pytest.mark.parametrize(("said", "drain_s", "stop_s"), [(None, "3.0", 10), ("0", "0.0", 10), ("7.5", "7.5", 19)])
def test_calls_in_flight_get_the_time_that_is_set_else_a_short_one(tmp_path, monkeypatch, said, drain_s, stop_s):
    monkeypatch.delenv("MESHWRIGHT_DRAIN_S", raising=False)
    if said:
        monkeypatch.setenv("MESHWRIGHT_DRAIN_S", said)
    mesh = Mesh(MeshPlan(port=0, data=tmp_path, docs=None, model="offline", agents=["mine.py:agent"]), None, print)
    started = [
        mesh._registry(),
        mesh._gateway("127.0.0.1:9"),
        *(mesh._agent(one, "127.0.0.1:9") for one in mesh._specs()),
    ]
    started.append(mesh._tool_host(("tools", "tools.py"), "127.0.0.1:9"))
    assert len(started) > 4
    assert {(one.environment["MESHWRIGHT_DRAIN_S"], one.stop_s) for one in started} == {(drain_s, stop_s)}


async def value(url):
    async with redis.Redis.from_url(url, protocol=3) as client:
        return await client.get("kept")


@pytest.mark.parametrize("had_port", [False, True])
@pytest.mark.parametrize("has_port", [False, True])
async def test_a_store_that_outlived_its_mesh_is_ended_before_the_next_one_starts(
    run_valkey, start_store, tmp_path, had_port, has_port
):
    taken = set()
    orphan = run_valkey(tmp_path, port=ports.reserve(HOST, taken) if had_port else 0)
    while not await mesh_module.listens(orphan.embedded.socket):
        pass
    async with redis.Redis.from_url(orphan.url, protocol=3) as client:
        await client.set("kept", "here")
    mesh = await start_store(ports.reserve(HOST, taken) if has_port else 0)
    assert orphan.process.wait(5) == 0
    assert await value(mesh._store_url) == b"here"


async def test_an_orphan_that_does_not_end_keeps_the_next_mesh_from_starting(
    run_valkey, start_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(mesh_module, "ORPHAN_S", 0.5)
    orphan = run_valkey(tmp_path, port=ports.reserve(HOST, set()))
    while not await mesh_module.listens(orphan.embedded.socket):
        pass
    os.kill(orphan.process.pid, signal.SIGSTOP)
    with pytest.raises(SetupError, match=r"does not end: stop the process that listens on .*store\.sock"):
        await start_store(0)
    assert EmbeddedValkey.former(tmp_path).password == orphan.embedded.password
    os.kill(orphan.process.pid, signal.SIGCONT)
    await end_orphan(EmbeddedValkey.former(tmp_path))
    assert orphan.process.wait(5) == 0


async def test_a_socket_that_nobody_listens_on_is_no_orphan(run_valkey, start_store, tmp_path):
    killed = run_valkey(tmp_path, port=ports.reserve(HOST, set()))
    while not await mesh_module.listens(killed.embedded.socket):
        pass
    killed.kill()
    assert killed.embedded.socket.exists()
    mesh = await start_store(0)
    assert mesh.children["store"].pid


@pytest.fixture
async def running(tmp_path, monkeypatch):
    """A mesh without agents, and what it told; certificates of another mesh are none of its business."""
    for variable in ("MESHWRIGHT_TLS_DIR", "MESHWRIGHT_EDGE_TLS_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "no_certificates"))
    told = []
    taken = set()
    plan = MeshPlan(
        port=ports.reserve(HOST, taken),
        data=tmp_path,
        docs=None,
        model="offline",
        store_port=ports.reserve(HOST, taken),
        bundled=(),
    )
    mesh = Mesh(plan, tmp_path / "ready.json", told.append)
    await mesh.start()
    yield mesh, told
    await mesh.stop()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def occupied(port):
    """Takes a port as soon as its owner has gone."""
    while True:
        try:
            return socket.create_server((HOST, port))
        except OSError:
            time.sleep(0.001)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("registry", "port {port} on 127.0.0.1 is in use: choose another one, or stop what listens there"),
        ("store", "Failed listening on port {port} (tcp), aborting"),
        ("envoy", "cannot bind '127.0.0.1:{port}': Address already in use"),
    ],
)
async def test_a_process_whose_port_is_taken_says_so_and_is_tried_again_until_it_is_free(running, name, said):
    mesh, told = running
    child = mesh.children[name]
    port = {"registry": int(child.target.rpartition(":")[2] or 0), "store": mesh.plan.store_port}.get(
        name, mesh.plan.port
    )
    os.kill(child.pid, signal.SIGKILL)
    with occupied(port):
        await until(lambda: sum("did not start" in line for line in told) >= 3)
        assert child.pid == 0
    await until(lambda: "runs again" in told[-1])
    assert told[0].startswith(f"{name} (pid ")
    assert told[0].endswith(" ended: killed by SIGKILL")
    failures = [line for line in told if "did not start" in line]
    assert told[1:-1] == failures
    pauses = ["0.3 s", "1 s", "2 s", "5 s", "5 s"]
    why = f"{name} did not start: {said.format(port=port)}"
    assert failures == [f"{why}; trying again in {pause}" for pause in pauses[: len(failures)]]
    assert told[-1] == f"{name} runs again as pid {child.pid}"


def test_a_port_that_is_wished_for_is_given_where_it_is_free():
    port = ports.reserve("127.0.0.1", set())
    assert ports.reserve("127.0.0.1", set(), port) == port
    assert ports.reserve("127.0.0.1", {port}, port) != port
    assert ports.FIRST <= ports.reserve("127.0.0.1", set(), 80) <= ports.LAST
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert ports.reserve("127.0.0.1", set(), port) != port


@pytest.fixture
def plan(tmp_path):
    """A plan of which only the checks are of interest."""
    taken = set()
    port, store_port = ports.reserve(HOST, taken), ports.reserve(HOST, taken)
    return MeshPlan(port=port, data=tmp_path / "data", docs=None, model="offline", store_port=store_port)


@pytest.mark.parametrize("place", ["nowhere/ready.json", "."])
async def test_a_ready_file_that_cannot_be_written_is_refused_before_anything_starts(plan, tmp_path, place):
    file = tmp_path / place
    mesh = Mesh(plan, file, print)
    with pytest.raises(SetupError, match=rf"^the ready file {file} cannot be written: .*--ready-file$"):
        await mesh.start()
    assert mesh.children == {}
    assert not plan.data.exists()


async def test_a_port_of_the_store_that_is_taken_is_refused_before_anything_starts(plan):
    said = f"^port {plan.store_port} is in use: choose another one with --store-port, or stop what listens there$"
    with socket.create_server((HOST, plan.store_port)), pytest.raises(SetupError, match=said):
        await Mesh(plan, None, print).start()
    with pytest.raises(SetupError, match=f"^port {plan.port} is the edge's: choose another one with --store-port$"):
        await Mesh(replace(plan, store_port=plan.port), None, print).start()


async def test_a_disk_that_is_full_is_told_with_what_to_do(plan, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said = f"^the disk of {plan.data} is full: free some of it, or choose another folder with --data$"
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuses)
        with pytest.raises(SetupError, match=said):
            await Mesh(plan, None, print).start()
    for line in ("Error trying to write the manifest: No space left on device", "Can't recover from AOF write error"):
        command = (sys.executable, "-c", f"import sys; sys.exit({f'7:M 01 Jan 2026 00:00:00.000 # {line}'!r})")
        store = EmbeddedValkey(command, Path("/nowhere/store.sock"))
        monkeypatch.setattr(EmbeddedValkey, "prepare", lambda *_, found=store, **__: found)
        with pytest.raises(SetupError, match=said):
            await Mesh(plan, None, print).start()
