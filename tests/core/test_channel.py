"""Calling another service: what goes along, what comes back, what is tried again."""

import asyncio
import socket
import time

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from meshwright.core import channel, errors
from meshwright.core.call import DEADLINE, METADATA_KEY
from meshwright.core.channel import MARGIN_S, Channels, dial
from meshwright.core.errors import DeadlineExceededError, MeshError, UnavailableError
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

CARRIED = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, MeshError) and error.reason != "INTERNAL"
]


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def test_every_error_arrives_as_the_class_that_the_server_raised(serve):
    async def run_task(request, _context):
        raise MeshError.by_reason[request.prompt](
            "told", fields={"f": "wrong"}, metadata={"a": "b"}, retry_after_s=0.25
        )

    served = await serve(run_task=run_task)
    for error in CARRIED:
        with pytest.raises(error) as caught:
            await channel.unary(served.stub.RunTask, TaskRequest(prompt=error.reason), timeout_s=5)
        assert type(caught.value) is error
        assert (caught.value.message, caught.value.fields, caught.value.metadata) == (
            "told",
            {"f": "wrong"},
            {"a": "b"},
        )
        assert caught.value.retry_after_s == 0.25


async def test_an_error_within_a_stream_arrives_as_its_class_too(serve):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        raise errors.TaskExpiredError("gone")

    served = await serve(steps=steps)
    stream = channel.stream(served.stub.StreamSteps, TaskRequest(), timeout_s=None)
    assert (await anext(stream)).sequence == 1
    with pytest.raises(errors.TaskExpiredError):
        await anext(stream)


async def test_a_server_that_is_not_there_is_unavailable(closed_port):
    async with dial(f"127.0.0.1:{closed_port}") as nowhere:
        with pytest.raises(UnavailableError) as caught:
            await channel.unary(AgentServiceStub(nowhere).RunTask, TaskRequest(), timeout_s=5)
    assert str(closed_port) in caught.value.message


async def test_a_server_that_does_not_answer_in_time_is_a_deadline(serve):
    async def health(_request, _context):
        await asyncio.sleep(30)

    served = await serve(health=health)
    with pytest.raises(DeadlineExceededError):
        await channel.unary(served.stub.Health, HealthRequest(), timeout_s=0.1)


async def test_a_callees_deadline_lies_before_its_callers(serve, monkeypatch):
    monkeypatch.setattr(channel, "MARGIN_S", 1.0)  # more than what gRPC rounds on the wire
    remaining = {}

    async def callee(_request, context):
        remaining["callee"] = context.time_remaining()
        return HealthResponse()

    async def caller(request, context):
        remaining["caller"] = context.time_remaining()
        return await channel.unary(behind.stub.Health, request, timeout_s=60)

    behind = await serve(health=callee)
    front = await serve(health=caller)
    await channel.unary(front.stub.Health, HealthRequest(), timeout_s=3)
    assert remaining["caller"] < 3.1
    assert remaining["callee"] < remaining["caller"] - 0.5


async def test_the_imposed_deadline_is_passed_on_as_well(serve):
    remaining = []

    async def callee(_request, context):
        remaining.append(context.time_remaining())
        return HealthResponse()

    async def caller(request, _context):
        return await channel.unary(behind.stub.Health, request, timeout_s=3600)

    behind = await serve(health=callee)
    front = await serve(health=caller)
    await front.stub.Health(HealthRequest())
    assert 50 < remaining[0] < 61  # gRPC rounds on the wire


async def test_ones_own_shorter_timeout_wins(serve):
    remaining = []

    async def health(_request, context):
        remaining.append(context.time_remaining())
        return HealthResponse()

    served = await serve(health=health)
    token = DEADLINE.set(time.monotonic() + 60)
    await channel.unary(served.stub.Health, HealthRequest(), timeout_s=2)
    DEADLINE.reset(token)
    assert remaining[0] < 2.1


async def test_without_time_left_nothing_is_called(serve):
    called = []

    async def health(_request, _context):
        called.append(1)
        return HealthResponse()

    served = await serve(health=health)
    token = DEADLINE.set(time.monotonic() + MARGIN_S / 2)
    with pytest.raises(DeadlineExceededError):
        await channel.unary(served.stub.Health, HealthRequest(), timeout_s=2)
    DEADLINE.reset(token)
    assert called == []


async def test_trace_and_grant_go_along(serve):
    seen = {}

    async def health(_request, context):
        seen.update(dict(context.invocation_metadata()))
        return HealthResponse()

    served = await serve(health=health)
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        await channel.unary(served.stub.Health, HealthRequest(), timeout_s=5, grant=b"\x01\x02")
    assert seen["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert seen[METADATA_KEY] == b"\x01\x02"
    seen.clear()
    await channel.unary(served.stub.Health, HealthRequest(), timeout_s=5)
    assert not {"traceparent", METADATA_KEY} & set(seen)


async def test_leaving_a_stream_cancels_it_at_the_server(serve):
    left = asyncio.Event()

    async def steps(_request, _context):
        try:
            yield StepEvent(sequence=1)
            await asyncio.sleep(30)
        finally:
            left.set()

    served = await serve(steps=steps)
    stream = channel.stream(served.stub.StreamSteps, TaskRequest(), timeout_s=None)
    assert (await anext(stream)).sequence == 1
    await stream.aclose()
    async with asyncio.timeout(5):
        await left.wait()


async def test_keyed_calls_are_tried_again_and_others_are_not(serve):
    tried = []

    async def flaky(request, _context):
        tried.append(type(request).__name__)
        if len(tried) < 3:
            raise UnavailableError("not now")
        return HealthResponse(agent_id="at last")

    served = await serve(health=flaky, run_task=flaky)
    with pytest.raises(UnavailableError):
        await channel.unary(served.stub.RunTask, TaskRequest(), timeout_s=5)
    assert tried == ["TaskRequest"]
    assert (await channel.unary(served.stub.Health, HealthRequest(), timeout_s=5)).agent_id == "at last"
    assert tried == ["TaskRequest", "HealthRequest", "HealthRequest"]


async def test_one_channel_is_kept_for_each_target(serve):
    served = await serve()
    channels = Channels()
    assert channels.to(served.target) is channels.to(served.target)
    assert channels.to("127.0.0.1:1") is not channels.to(served.target)
    await AgentServiceStub(channels.to(served.target)).Health(HealthRequest())
    await channels.close()
    assert channels._open == {}


async def test_a_server_that_comes_back_on_its_port_is_found_again(serve):
    served = await serve()
    port = int(served.target.rpartition(":")[2])
    async with dial(served.target) as kept:
        stub = AgentServiceStub(kept)
        await channel.unary(stub.Health, HealthRequest(), timeout_s=5)
        await served.server.stop()
        await serve(port=port)
        async with asyncio.timeout(10):
            while True:
                try:
                    await channel.unary(stub.Health, HealthRequest(), timeout_s=5)
                    break
                except UnavailableError:
                    await asyncio.sleep(0.05)
    assert isinstance(kept, grpc.aio.Channel)
