"""More than a process takes: the excess is refused with a reason and a time, what is in flight goes on."""

import asyncio
import subprocess
import sys
import threading
import time

import grpc
import pytest

from meshwright.agents.settings import AgentSettings
from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError, OverloadedError
from meshwright.core.settings import Settings, child_environment
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint, ListAgentsRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.registry.client import RegistryClient
from meshwright.registry.serving import RegistryProcess
from tests.e2e.conftest import HERE, events

NARROW = """
from meshwright.agents import Agent
agent = Agent("narrow", "Counts.", tools=["tick"], model="scripted:{script}")
"""


@pytest.fixture(scope="module")
def narrow(dev, tmp_path_factory):
    """An agent beside the mesh that serves one call and one stream at once."""
    file = tmp_path_factory.mktemp("narrow") / "narrow.py"
    file.write_text(NARROW.format(script=HERE / "slow.yaml"))
    settings = AgentSettings(store_url=dev.facts["store"], registry=dev.facts["registry"], max_calls=1, max_streams=1)
    command = [sys.executable, "-m", "meshwright.agents", f"{file}:agent"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(settings)
    ) as process:
        process.stdout.readline()
        ends = time.monotonic() + 5
        while dev.request("GET", "/v1/agents/narrow/health").status != 200:
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield
        process.terminate()


def is_overloaded(answer):
    reasons = [detail.get("reason") for detail in answer.json["details"]]
    assert answer.json["details"][0]["metadata"]["limit"] == "process"
    retry = next(detail for detail in answer.json["details"] if detail["@type"].endswith("RetryInfo"))
    return (answer.status, answer.json["code"], answer.headers["retry-after"], reasons[0], retry["retry_delay"]) == (
        429,
        8,
        "1",
        "OVERLOADED",
        "1s",
    )


def test_a_call_too_many_is_429_with_the_time_to_try_again(dev, narrow):
    done = []
    first = threading.Thread(
        target=lambda: done.append(dev.request("POST", "/v1/agents/narrow/run", {"prompt": "count"}))
    )
    first.start()
    time.sleep(0.4)
    refused = dev.request("POST", "/v1/agents/narrow/run", {"prompt": "count"})
    first.join()
    assert is_overloaded(refused), (refused.status, refused.headers, refused.body)
    assert (done[0].status, done[0].json["output"]) == (200, "Counted to three.")
    assert dev.request("POST", "/v1/agents/narrow/run", {"prompt": "count"}).status == 200


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_a_stream_too_many_is_429_with_the_time_to_try_again(dev, narrow, accept):
    with dev.stream("POST", "/v1/agents/narrow/steps", {"prompt": "count"}, accept="text/event-stream") as open_stream:
        refused = dev.request("POST", "/v1/agents/narrow/steps", {"prompt": "count"}, accept=accept)
        assert is_overloaded(refused), (refused.status, refused.headers, refused.body)
        assert "result" in list(events(open_stream))[-1]


async def test_a_registry_that_is_overloaded_keeps_no_agent_from_starting(store):
    registry = RegistryProcess(Settings(store_url=store.url, max_calls=1, drain_s=0, tracing=False))
    channels = Channels()
    target = await registry.start()
    client, stub = RegistryClient(channels, target), AgentDirectoryServiceStub(channels.to(target))
    burst = [channel.unary(stub.ListAgents, ListAgentsRequest(), timeout_s=5) for _ in range(12)]
    refused = [error for error in await asyncio.gather(*burst, return_exceptions=True) if isinstance(error, Exception)]
    assert {type(error) for error in refused} == {OverloadedError}
    cards = [(AgentCard(agent_id=f"a{number}", version="1.0.0"), f"a{number}-1") for number in range(12)]
    await asyncio.gather(
        *(client.announce(card, Endpoint(instance_id=one, target="127.0.0.1:7")) for card, one in cards)
    )
    assert len(await client.list_agents()) == len(cards)
    await channels.close()
    await registry.stop()


async def test_a_grpc_client_behind_the_edge_gets_the_error_itself(dev, narrow):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{dev.port}") as opened:
        stub = AgentServiceStub(opened)
        metadata = (("x-agent-id", "narrow"),)
        first = asyncio.ensure_future(stub.RunTask(TaskRequest(prompt="count"), metadata=metadata))
        await asyncio.sleep(0.4)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RunTask(TaskRequest(prompt="count"), metadata=metadata)
        error = MeshError.from_rpc(caught.value)
        assert (type(error), error.retry_after_s, error.metadata["limit"]) == (OverloadedError, 1, "process")
        assert (await first).output == "Counted to three."
