"""An agent's port for probes: alive as soon as it listens, ready when it has found the registry and its tools."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from meshwright.agents import Agent
from meshwright.agents.serving import AgentProcess
from meshwright.agents.settings import AgentSettings
from meshwright.core.probes import LIVENESS
from meshwright.core.process import ended
from meshwright.registry import tool

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@tool(name="late.comer", version="1.0.0", effect="pure", timeout_s=5)
def late_comer(text: str) -> str:
    """Comes later."""
    return text


async def asked(process, service=""):
    async with grpc.aio.insecure_channel(process.server.probes.target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return (await HealthStub(channel).Check(request, timeout=5)).status


async def listening(process):
    async with asyncio.timeout(20):
        while not process.server.target:
            await asyncio.sleep(0.01)


@pytest.fixture
async def waiting(mesh):
    """An agent that starts, and waits for a tool that nobody serves yet."""
    settings = AgentSettings(
        store_url=mesh.url,
        registry=mesh.target,
        partitions=mesh.partitions,
        content_keys_file=mesh.keys_file,
        health_port=0,
        drain_s=0,
        tracing=False,
    )
    process = AgentProcess(Agent("waiting", "Wait.", tools=["late.comer@^1"]), settings)
    starting = asyncio.create_task(process.start())
    yield process, starting
    await ended(starting)
    await process.stop()


async def test_an_agent_is_ready_when_its_tools_are_there_and_alive_before(mesh, waiting):
    process, starting = waiting
    await listening(process)
    assert await asked(process, LIVENESS) == SERVING
    assert await asked(process) == NOT_SERVING
    assert not starting.done()
    await mesh.agent(Agent("helper", "Help.", tools=[late_comer]))
    async with asyncio.timeout(30):
        await starting
    assert await asked(process) == SERVING


async def test_who_takes_its_leave_is_ready_no_more(mesh):
    process = await mesh.agent(Agent("leaving", "Leave."), health_port=0, drain_s=3)
    assert await asked(process) == SERVING
    stopping = asyncio.create_task(mesh.stop(process))
    async with asyncio.timeout(20):
        while await asked(process) == SERVING:
            await asyncio.sleep(0.01)
        assert await asked(process, LIVENESS) == SERVING
        await stopping
