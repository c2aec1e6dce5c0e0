"""A mesh whose processes are started one by one: what a gateway leaves where, and what it costs that it starts anew."""

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import time

import pytest

from meshwright.agents.agent import Agent
from meshwright.core.api_key import ApiKeys
from meshwright.core.process import ended
from meshwright.gateway.envoy import BOOTSTRAP
from meshwright.gateway.settings import GatewaySettings
from meshwright.registry.settings import RegistrySettings
from tests.conftest import Mesh
from tests.e2e.edges import free_ports

START_S = 50.0


class ByHand:
    """A gateway and an Envoy as a user starts them: by commands, in a folder of the user's."""

    def __init__(self, mesh, folder, key):
        self.folder, self.key = folder / "here", key
        self.home = folder / "data" / "meshwright" / "gateway"
        port, self.port, internal = free_ports(3)
        settings = {"AUTH": "keys", "PORT": port, "EDGE_PORT": self.port, "INTERNAL_PORT": internal, "DRAIN_S": 0}
        settings |= {"STORE_URL": mesh.url, "REGISTRY": mesh.target, "DEFAULT_AGENT": "clerk"}
        settings |= {f"LIMIT_{whose}": 0 for whose in ("ADDRESS", "PRINCIPAL", "TENANT")}  # calls do not count
        chosen = {f"MESHWRIGHT_{name}": str(value) for name, value in settings.items()}
        self.environment = os.environ | chosen | {"XDG_DATA_HOME": str(folder / "data")}
        self.folder.mkdir()
        self._started = []

    async def start(self, module, **pipes):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, cwd=self.folder, env=self.environment, **pipes
        )
        self._started.append(process)
        return process

    async def end(self):
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def gateway(self):
        process = await self.start("meshwright.gateway", stdout=subprocess.PIPE)
        async with asyncio.timeout(START_S):
            assert b"target" in await process.stdout.readline()
        return process

    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/v1/agents/clerk/health", headers={"x-api-key": self.key})
            response = connection.getresponse()
            response.read()
            return response.status
        return 0

    async def until_it_answers(self):
        started = time.monotonic()
        async with asyncio.timeout(START_S):
            while await asyncio.to_thread(self.ask) != 200:
                await asyncio.sleep(0.05)
        return time.monotonic() - started


@pytest.fixture
async def by_hand(store, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        mesh = Mesh(store.url, tmp_path, auth="keys")
        await mesh.open()
        stack.push_async_callback(mesh.close)
        await mesh.agent(Agent("clerk", "You answer."), model="offline")
        key, _ = await ApiKeys(store).create("test", ["agents:read"], tenant="acme", principal="ann")
        made = ByHand(mesh, tmp_path, key)
        stack.push_async_callback(made.end)
        yield made


async def test_a_gateway_that_is_killed_under_load_and_started_again_answers_without_a_new_envoy(by_hand):
    gateway = await by_hand.gateway()
    envoy = await by_hand.start("meshwright.gateway.envoy")
    seen = []

    async def load():
        while True:
            seen.append(await asyncio.to_thread(by_hand.ask))

    callers = []
    try:
        await by_hand.until_it_answers()
        callers = [asyncio.create_task(load()) for _ in range(4)]
        gateway.kill()
        await gateway.wait()
        async with asyncio.timeout(START_S):
            while 503 not in seen:
                await asyncio.sleep(0.05)
        await by_hand.gateway()
        assert await by_hand.until_it_answers() < 10
        seen.clear()
        async with asyncio.timeout(START_S):
            while len(seen) < 100:
                await asyncio.sleep(0.05)
        assert set(seen) == {200}
        assert envoy.returncode is None
    finally:
        await ended(*callers)


async def test_a_gateway_writes_into_a_folder_of_its_own_and_says_where(by_hand):
    mine = by_hand.folder / "jwks.json"
    mine.write_text("mine")
    gateway = await by_hand.start("meshwright.gateway", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    async with asyncio.timeout(START_S):
        await gateway.stdout.readline()
        while (line := json.loads(await gateway.stderr.readline()))["event"] != "envoy_files_written":
            pass
    assert line["folder"] == str(by_hand.home)
    assert (by_hand.home / BOOTSTRAP).exists()
    assert [*by_hand.folder.iterdir()] == [mine]
    assert mine.read_text() == "mine"


async def test_a_gateway_whose_port_is_taken_says_which(by_hand):
    await by_hand.gateway()
    second = await by_hand.start("meshwright.gateway", stderr=subprocess.PIPE)
    async with asyncio.timeout(START_S):
        said = await second.stderr.read()
        await second.wait()
    assert second.returncode == 1
    assert f"error: port {by_hand.environment['MESHWRIGHT_PORT']} on 127.0.0.1 is in use".encode() in said


async def test_a_gateway_whose_configuration_envoy_refuses_ends_in_order(by_hand):
    by_hand.environment |= {"MESHWRIGHT_EDGE_HOST": "no address", "MESHWRIGHT_INSECURE": "true"}
    gateway = await by_hand.start("meshwright.gateway", stderr=subprocess.PIPE)
    async with asyncio.timeout(START_S):
        *told, said = (await gateway.stderr.read()).splitlines()
        await gateway.wait()
    assert gateway.returncode == 1
    assert [json.loads(line)["event"] for line in told] == ["edge_is_unreachable", "ended"]
    assert said.startswith(b"error: ")


async def test_an_envoy_before_its_gateway_is_told_to_wait(by_hand):
    envoy = await by_hand.start("meshwright.gateway.envoy", stderr=subprocess.PIPE)
    async with asyncio.timeout(START_S):
        said = await envoy.stderr.read()
        await envoy.wait()
    assert envoy.returncode == 1
    assert f"{by_hand.home} holds no {BOOTSTRAP}".encode() in said


def test_ports_by_which_others_know_a_process_are_the_same_after_each_start():
    assert (RegistrySettings().port, GatewaySettings().port) == (7070, 8082)
    assert RegistrySettings().registry == f"127.0.0.1:{RegistrySettings().port}"
