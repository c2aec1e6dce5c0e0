"""The server: where it listens, what it tells probes, how it stops."""

import asyncio
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from meshwright.core.errors import SetupError
from meshwright.core.server import Server, is_loopback
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

NAMES = ["agents.v1.AgentService", "grpc.health.v1.Health"]


async def test_a_free_port_is_chosen_and_told(serve):
    served = await serve()
    host, _, port = served.target.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert (await served.stub.Health(HealthRequest())).agent_id == "probe"


async def test_a_port_in_use_is_told_in_one_line(serve):
    served = await serve()
    port = int(served.target.rpartition(":")[2])
    with pytest.raises(SetupError) as caught:
        await serve(port=port)
    assert f"port {port} on 127.0.0.1 is in use" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "mesh.example", "::"])
async def test_plain_text_does_not_leave_the_machine_by_accident(host):
    with pytest.raises(SetupError) as caught:
        await Server(Settings(host=host, tracing=False), {}).start()
    assert "MESHWRIGHT_INSECURE=true" in caught.value.message
    assert "\n" not in caught.value.message


async def test_plain_text_leaves_the_machine_when_that_is_meant(serve):
    served = await serve(host="0.0.0.0", insecure=True)
    assert (await served.stub.Health(HealthRequest())).agent_id == "probe"


@pytest.mark.parametrize(
    ("host", "is_local"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
)
def test_loopback_addresses_are_known(host, is_local):
    assert is_loopback(host) is is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_all_other_addresses_are_not_loopback(host):
    assert not is_loopback(host)


async def test_an_ipv6_address_is_announced_so_that_it_can_be_dialled(serve):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    served = await serve(host="::1")
    assert served.target.startswith("[::1]:")
    assert (await served.stub.Health(HealthRequest())).agent_id == "probe"


@pytest.mark.parametrize("name", ["", *NAMES])
async def test_probes_hear_that_it_serves_and_then_that_it_does_not(serve, name):
    served = await serve()
    health = HealthStub(served.channel)
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    await served.server.set_serving(is_serving=False)
    assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_service_that_is_not_here_is_not_found_by_probes(serve):
    served = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await HealthStub(served.channel).Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def services_by_reflection(channel) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=5)
    return [service.name async for answer in call for service in answer.list_services_response.service]


@pytest.mark.parametrize("is_tracing", [False, True])
async def test_reflection_lists_the_services_where_it_is_switched_on(serve, is_tracing):
    served = await serve(reflection=True, tracing=is_tracing)
    names = await services_by_reflection(served.channel)
    assert [name for name in names if "Reflection" not in name] == NAMES


async def test_reflection_is_off_unless_it_is_switched_on(serve):
    served = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services_by_reflection(served.channel)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_beyond_the_limit_is_refused(serve):
    served = await serve(run_task=None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.RunTask(TaskRequest(prompt="x" * 9 * 2**20))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_draining_lets_a_call_in_flight_end_and_refuses_new_ones(serve):
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def health(_request, _context):
        entered.set()
        await may_end.wait()
        return HealthResponse(agent_id="done")

    served = await serve(health=health, drain_s=20)
    call = served.stub.Health(HealthRequest())
    async with asyncio.timeout(10):
        await entered.wait()
        stopping = asyncio.create_task(served.server.stop())
        async with grpc.aio.insecure_channel(served.target) as late:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await late.unary_unary("/agents.v1.AgentService/Health")(b"", timeout=3)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert not stopping.done()
        may_end.set()
        assert (await call).agent_id == "done"
        await stopping


async def test_a_call_that_outlives_the_drain_time_is_cut(serve):
    entered = asyncio.Event()

    async def health(_request, _context):
        entered.set()
        await asyncio.sleep(30)

    served = await serve(health=health, drain_s=0.1)
    call = served.stub.Health(HealthRequest())
    async with asyncio.timeout(10):
        await entered.wait()
        await served.server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_one_connection_carries_more_streams_than_wait_elsewhere(serve):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        await asyncio.sleep(60)

    served = await serve(steps=steps)
    streams = [served.stub.StreamSteps(TaskRequest()) for _ in range(150)]
    async with asyncio.timeout(20):
        assert [(await stream.read()).sequence for stream in streams] == [1] * 150
        assert (await served.stub.Health(HealthRequest())).agent_id == "probe"
    for stream in streams:
        stream.cancel()
