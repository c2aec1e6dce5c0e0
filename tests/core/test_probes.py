"""The port for probes: plain text beside mTLS, readiness apart from liveness, and nothing else."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from meshwright.cli.authority import Authority, Wanted
from meshwright.core.errors import SetupError
from meshwright.core.probes import LIVENESS
from meshwright.core.role import Role
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def ask(target, service="", method="Check"):
    async with grpc.aio.insecure_channel(target) as channel:
        called = getattr(HealthStub(channel), method)(health_pb2.HealthCheckRequest(service=service), timeout=10)
        if method == "Watch":
            return (await called.read()).status
        return (await called).status


@pytest.fixture
def folder(tmp_path):
    authority = Authority.make(tmp_path / "certs")
    authority.issue(Wanted(Role.AGENT), 1)
    return str(authority.folder / "agent")


@pytest.mark.parametrize("service", ["", LIVENESS])
async def test_a_probe_without_a_certificate_is_answered_beside_mtls(serve, folder, service):
    served = await serve(tls_dir=folder, health_port=0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(served.target, service)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await ask(served.server.probes.target, service) == SERVING


@pytest.mark.parametrize("called", ["Watch", "List", "/agents.v1.AgentService/Health", "/x/y"])
async def test_nothing_else_is_served_there(serve, called):
    served = await serve(health_port=0, reflection=True)
    path = called if called.startswith("/") else f"/grpc.health.v1.Health/{called}"
    async with grpc.aio.insecure_channel(served.server.probes.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(HealthRequest().SerializeToString(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["agents.v1.AgentService", "readiness", "x" * 900])
async def test_other_names_are_not_found(serve, service):
    served = await serve(health_port=0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(served.server.probes.target, service)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_name_beyond_all_bounds_is_refused(serve):
    served = await serve(health_port=0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(served.server.probes.target, "x" * 2_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_takes_no_new_calls_is_alive_and_not_ready(serve):
    served = await serve(health_port=0)
    await served.server.set_serving(is_serving=False)
    assert await ask(served.server.probes.target) == NOT_SERVING
    assert await ask(served.server.probes.target, LIVENESS) == SERVING
    await served.server.set_serving(is_serving=True)
    assert await ask(served.server.probes.target) == SERVING


async def test_who_drains_is_alive_until_the_last_call_has_ended(serve):
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def health(_request, _context):
        entered.set()
        await may_end.wait()
        return HealthResponse(agent_id="done")

    served = await serve(health=health, drain_s=20, health_port=0)
    target = served.server.probes.target
    call = served.stub.Health(HealthRequest())
    async with asyncio.timeout(20):
        await entered.wait()
        stopping = asyncio.create_task(served.server.stop())
        while await ask(target) != NOT_SERVING:
            await asyncio.sleep(0)
        assert await ask(target, LIVENESS) == SERVING
        may_end.set()
        assert (await call).agent_id == "done"
        await stopping
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(target, LIVENESS)


async def test_there_is_no_such_port_unless_it_is_chosen(serve):
    assert (await serve()).server.probes is None


async def test_the_port_may_be_on_another_address_than_the_service(serve):
    served = await serve(health_port=0, health_host="127.0.0.2")
    assert served.target.startswith("127.0.0.1:")
    assert served.server.probes.target.startswith("127.0.0.2:")
    assert await ask(served.server.probes.target) == SERVING


async def test_a_port_in_use_is_told_in_one_line(serve):
    served = await serve()
    port = int(served.target.rpartition(":")[2])
    with pytest.raises(SetupError) as caught:
        await serve(health_port=port)
    assert f"health port {port} on 127.0.0.1 cannot be used" in caught.value.message
    assert "\n" not in caught.value.message
