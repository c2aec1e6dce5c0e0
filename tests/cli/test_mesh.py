"""The mesh's own store: one process on its files, whatever an earlier mesh left behind."""

import os
import signal

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
