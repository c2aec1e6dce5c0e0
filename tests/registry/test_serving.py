"""Processes: a registry and a tool host as their own programs, started, used, stopped."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import textwrap
import time

import grpc
import pytest
from google.protobuf import struct_pb2

from meshwright.core import channel
from meshwright.core.canonical import from_value
from meshwright.core.channel import dial
from meshwright.core.errors import SetupError, ToolFailedError, ToolRateLimitedError, UnavailableError
from meshwright.core.settings import Settings
from meshwright.gen.registry.v1.agent_directory_service_pb2 import GetKeyRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    GetToolRequest,
    InvokeToolRequest,
    ListToolsRequest,
)
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry.serving import RegistryProcess

LIMIT_S = 30
TOOLS = '''
import asyncio, os, time
from dataclasses import dataclass
from meshwright.registry import tool

@dataclass
class Sum:
    total: int
    pid: int

@tool(name="sums.add", effect="pure")
def add(numbers: list[int]) -> Sum:
    """Adds numbers."""
    return Sum(sum(numbers), os.getpid())

@tool(effect="pure", timeout_s=0.1)
def hang() -> str:
    """Hangs in a thread that nobody can end."""
    time.sleep(120)
    return "never"
'''


@pytest.fixture
def run(store, monkeypatch):
    """Runs a program of the registry: `run("meshwright.registry")`; reads its ready line."""
    for name in list(os.environ):
        if name.startswith("MESHWRIGHT_"):
            monkeypatch.delenv(name)
    with contextlib.ExitStack() as stack:

        def start(*arguments, **settings):
            environment = os.environ | {"MESHWRIGHT_STORE_URL": store.url, "MESHWRIGHT_DRAIN_S": "0"}
            environment |= {f"MESHWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}
            child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield start


async def ready(child) -> dict:
    async with asyncio.timeout(LIMIT_S):
        line = await asyncio.to_thread(child.stdout.readline)
    assert line, child.stderr.read()
    return json.loads(line)


async def stopped(child) -> list[str]:
    """Stops a program that has to exit 0 and returns the events that it logged."""
    child.terminate()
    _, err = await asyncio.to_thread(child.communicate, timeout=LIMIT_S)
    assert child.returncode == 0, err
    return [json.loads(line)["event"] for line in err.splitlines()]


async def test_a_file_of_tools_is_served_and_called_through_the_registry(run, registry, tmp_path):
    file = tmp_path / "my_tools.py"
    file.write_text(TOOLS)
    child = run("meshwright.registry.tool", str(file), registry=registry.target)
    facts = await ready(child)
    tools = (await channel.unary(registry.tools.ListTools, ListToolsRequest(), timeout_s=5)).tools
    assert [(one.name, one.endpoint) for one in tools] == [("hang", facts["target"]), ("sums.add", facts["target"])]

    arguments = struct_pb2.Struct()
    arguments.update({"numbers": [1, 2, 39]})
    request = InvokeToolRequest(name="sums.add", arguments=arguments)
    answer = await channel.unary(registry.tools.InvokeTool, request, timeout_s=10)
    assert from_value(answer.result, "result") == {"total": 42, "pid": child.pid}
    with pytest.raises(Exception, match=r"hang took longer than 0\.1 s"):
        await channel.unary(registry.tools.InvokeTool, InvokeToolRequest(name="hang"), timeout_s=10)

    start = time.monotonic()
    assert await stopped(child) == [
        "waits_for_registry",
        "ready",
        *("tool_called", "tool_failed", "tool_called"),
        *("draining", "ended"),
    ]
    assert time.monotonic() - start < 20
    with pytest.raises((UnavailableError, ToolFailedError)):
        await channel.unary(registry.tools.InvokeTool, request, timeout_s=5)


async def test_a_host_keeps_the_rates_that_it_is_told(run, registry, tmp_path):
    file = tmp_path / "my_tools.py"
    file.write_text(TOOLS)
    child = run("meshwright.registry.tool", str(file), registry=registry.target, tool_rates="sums.*=1")
    await ready(child)
    arguments = struct_pb2.Struct()
    arguments.update({"numbers": [1]})
    request = InvokeToolRequest(name="sums.add", arguments=arguments)
    await channel.unary(registry.tools.InvokeTool, request, timeout_s=10)
    with pytest.raises(ToolRateLimitedError):
        await channel.unary(registry.tools.InvokeTool, request, timeout_s=10)
    await stopped(child)


async def test_a_registry_of_its_own_process_serves_what_another_one_stored(run, registry):
    child = run("meshwright.registry", reflection="true")
    target = (await ready(child))["target"]
    async with dial(target) as other:
        stub = ToolRegistryServiceStub(other)
        assert not (await channel.unary(stub.ListTools, ListToolsRequest(), timeout_s=5)).tools
        with pytest.raises(Exception, match="no tool docs is registered"):
            await channel.unary(stub.GetTool, GetToolRequest(name="docs"), timeout_s=5)
    assert await stopped(child) == ["ready", "draining", "ended"]


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["meshwright.registry"], {"port": "many"}, "error: MESHWRIGHT_PORT='many': "),
        (["meshwright.registry"], {"store_url": "http://:hunter2@host"}, "error: MESHWRIGHT_STORE_URL is no address"),
        (["meshwright.registry.tool"], {}, "error: usage: "),
        (["meshwright.registry.tool", "nowhere.py"], {}, "error: nowhere.py is not a file"),
        (["meshwright.registry.tool", "json"], {}, "error: json holds no tools"),
    ],
    ids=["bad setting", "bad address", "no module", "no file", "no tools"],
)
def test_a_program_that_cannot_start_says_why_in_one_line(run, arguments, settings, told):
    child = run(*arguments, **settings)
    out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(told)
    assert "hunter2" not in err


def test_a_mistake_in_a_tool_is_told_in_one_line(run, registry, tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(
        textwrap.dedent("""
            from meshwright.registry import tool

            @tool
            def add(a, b) -> int:
                '''Adds.'''
        """)
    )
    child = run("meshwright.registry.tool", str(file), registry=registry.target)
    out, err = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, out) == (1, "")
    assert err == "error: tool add: parameter a needs a type annotation\n"


async def test_a_program_that_waits_for_its_registry_can_be_stopped(run, tmp_path):
    file = tmp_path / "my_tools.py"
    file.write_text(TOOLS)
    child = run("meshwright.registry.tool", str(file), registry="127.0.0.1:1")
    async with asyncio.timeout(LIMIT_S):
        assert json.loads(await asyncio.to_thread(child.stderr.readline))["event"] == "waits_for_registry"
    start = time.monotonic()
    assert await stopped(child) == []
    assert time.monotonic() - start < 20


async def test_a_registry_whose_port_is_taken_can_be_closed_again(registry, store):
    port = int(registry.target.rpartition(":")[2])
    second = RegistryProcess(Settings(store_url=store.url, port=port, drain_s=0, tracing=False))
    with pytest.raises(SetupError, match=f"port {port}"):
        await second.start()
    await second.stop()
    async with grpc.aio.insecure_channel(registry.target) as plain:
        await ToolRegistryServiceStub(plain).ListTools(ListToolsRequest())


async def test_all_services_of_a_store_have_the_same_partitions(store):
    first = RegistryProcess(Settings(store_url=store.url, partitions=4, drain_s=0, tracing=False))
    await first.start()
    second = RegistryProcess(Settings(store_url=store.url, partitions=2, drain_s=0, tracing=False))
    with pytest.raises(SetupError, match="MESHWRIGHT_PARTITIONS=4"):
        await second.start()
    await second.stop()
    await first.stop()


async def test_a_grant_that_one_registry_has_signed_is_checked_at_another(store):
    first, second = (RegistryProcess(Settings(store_url=store.url, drain_s=0, tracing=False)) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        for process in (first, second):
            stack.push_async_callback(process.stop)
        await first.start()
        async with dial(await second.start()) as wire:
            reply = await AgentDirectoryServiceStub(wire).GetKey(GetKeyRequest(key_id=first.signer.key_id), timeout=5)
    assert (reply.public_key, reply.edge) == (first.signer.public_key, False)
