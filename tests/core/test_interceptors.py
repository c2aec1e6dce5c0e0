"""What stands around every call: errors, deadlines, identity, counters. Over real gRPC."""

import asyncio
import contextlib
import re
import time

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from meshwright.core import interceptors, telemetry
from meshwright.core.call import DEADLINE, METADATA_KEY
from meshwright.core.errors import (
    DETAILS_KEY,
    InternalError,
    InvalidRequestError,
    KeyNotFoundError,
    MeshError,
    StoreUnavailableError,
)
from meshwright.core.grant import Signer, Verifier
from meshwright.core.interceptors import CALLER, Caller
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.grant_pb2 import Grant, SignedGrant
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse

HEALTH = "/agents.v1.AgentService/Health"


@pytest.fixture(params=[False, True], ids=["untraced", "traced"])
def is_tracing(request):
    return request.param


@pytest.fixture
def quiet():
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
async def unraised():
    """What reached the loop alone, since nobody awaited it."""
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


def events(entries):
    return [entry["event"] for entry in entries]


def raising(error):
    async def behave(_request, _context):
        raise error

    return behave


async def refused(call) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


def finished(method: str, code: str) -> float:
    return telemetry.CALLS.labels(method, code)._value.get()


async def test_an_exception_becomes_internal_with_an_id_that_is_in_the_log_and_nothing_else(serve, quiet, is_tracing):
    served = await serve(health=raising(ValueError("password=hunter2")), tracing=is_tracing)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Health(HealthRequest())
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "hunter2" not in repr(caught.value)
    assert b"hunter2" not in dict(caught.value.trailing_metadata())[DETAILS_KEY]
    assert dict(caught.value.trailing_metadata())["x-mesh-reason"] == "INTERNAL"
    error_id = re.search(r"internal error ([0-9a-f]{12})", caught.value.details())[1]
    assert [entry["error_id"] for entry in quiet if entry["event"] == "call_failed"] == [error_id]


async def test_a_call_is_logged_at_debug_when_it_is_accepted_and_when_it_is_answered(serve, quiet, is_tracing):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)

    served = await serve(health=raising(KeyNotFoundError("none")), steps=steps, tracing=is_tracing)
    await refused(served.stub.Health(HealthRequest()))
    assert [event async for event in served.stub.StreamSteps(TaskRequest())]
    assert {entry["log_level"] for entry in quiet} == {"debug"}
    assert [(entry["event"], entry["method"].rpartition("/")[2], entry.get("code")) for entry in quiet] == [
        ("call_accepted", "Health", None),
        ("call_answered", "Health", "NOT_FOUND"),
        ("call_accepted", "StreamSteps", None),
        ("call_answered", "StreamSteps", "OK"),
    ]
    assert all(0 <= entry["ms"] < 60_000 for entry in quiet if entry["event"] == "call_answered")


async def test_internals_told_by_our_own_errors_stay_inside_too(serve, quiet):
    served = await serve(health=raising(InternalError("the store refused a command: @user_function: 17")))
    error = await refused(served.stub.Health(HealthRequest()))
    assert type(error) is InternalError
    assert "user_function" not in error.message
    assert "call_failed" in events(quiet)


async def test_an_exception_in_a_stream_does_not_hide_what_was_sent_before(serve, quiet, is_tracing):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        raise ValueError("secret")

    served = await serve(steps=steps, tracing=is_tracing)
    stream = aiter(served.stub.StreamSteps(TaskRequest()))
    assert (await anext(stream)).sequence == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(stream)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "x-mesh-reason" not in dict(caught.value.trailing_metadata())
    assert "call_failed" in events(quiet)


async def test_our_errors_arrive_with_their_details(serve, is_tracing):
    wrong = InvalidRequestError("no prompt", fields={"prompt": "is required"}, metadata={"a": "b"}, retry_after_s=2)
    served = await serve(health=raising(wrong), tracing=is_tracing)
    error = await refused(served.stub.Health(HealthRequest()))
    assert type(error) is InvalidRequestError
    assert (error.message, error.fields, error.metadata, error.retry_after_s) == (
        "no prompt",
        {"prompt": "is required"},
        {"a": "b"},
        2,
    )


async def test_a_long_error_still_arrives_as_itself(serve):
    fields = {f"field{number}/" + "ü" * 5_000: "ü" * 5_000 for number in range(50)}
    served = await serve(health=raising(InvalidRequestError("ü" * 100_000, fields=fields)))
    async with grpc.aio.insecure_channel(served.target) as plain:
        call = plain.unary_unary(HEALTH)(b"")
        assert type(await refused(call)) is InvalidRequestError


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x02\xff\xff"], ids=["garbage", "no unicode"])
async def test_a_malformed_request_is_the_callers_error(serve, body):
    served = await serve()
    error = await refused(served.channel.unary_unary(HEALTH)(body))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    stream = served.channel.unary_stream("/agents.v1.AgentService/StreamSteps")(body)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stream))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_method_is_unimplemented(serve):
    served = await serve()
    error = await refused(served.channel.unary_unary("/agents.v1.AgentService/Nope")(b""))
    assert error.code == grpc.StatusCode.UNIMPLEMENTED


async def test_a_leaked_cancellation_is_aborted_and_does_not_hang(serve, is_tracing):
    served = await serve(health=raising(asyncio.CancelledError()), tracing=is_tracing)
    async with asyncio.timeout(5):
        error = await refused(served.stub.Health(HealthRequest()))
    assert error.reason == "ABORTED"


async def test_a_leaked_cancellation_in_a_stream_is_aborted_too(serve):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        raise asyncio.CancelledError

    served = await serve(steps=steps)
    stream = aiter(served.stub.StreamSteps(TaskRequest()))
    assert (await anext(stream)).sequence == 1
    async with asyncio.timeout(5):
        assert (await refused(anext(stream))).reason == "ABORTED"


async def test_a_caller_that_cancels_reaches_the_handler(serve, quiet, is_tracing):
    entered, left = asyncio.Event(), asyncio.Event()

    async def health(_request, _context):
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    served = await serve(health=health, tracing=is_tracing)
    before = finished(HEALTH, "CANCELLED")
    call = served.stub.Health(HealthRequest())
    async with asyncio.timeout(5):
        await entered.wait()
        call.cancel()
        await left.wait()
        while finished(HEALTH, "CANCELLED") == before:
            await asyncio.sleep(0.01)
    assert "call_failed" not in events(quiet)


@pytest.mark.parametrize("end", ["send", "abort"])
async def test_a_caller_whose_time_is_over_before_the_server_knows_it_is_no_fault_of_the_servers(
    serve, quiet, unraised, is_tracing, caplog, end
):
    async def health(_request, context):
        time.sleep(0.3)
        if end == "abort":
            raise KeyNotFoundError("none")
        await context.send_initial_metadata((("x-task-id", "1"),))

    served = await serve(health=health, tracing=is_tracing)
    before = finished(HEALTH, "DEADLINE_EXCEEDED")
    error = await refused(served.stub.Health(HealthRequest(), timeout=0.1))
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        while finished(HEALTH, "DEADLINE_EXCEEDED") == before:
            await asyncio.sleep(0.01)
    assert "call_failed" not in events(quiet)
    assert not unraised
    assert not [record for record in caplog.records if record.name.startswith("grpc") and record.levelname != "DEBUG"]


async def test_what_grpc_itself_fails_at_is_told_to_a_caller_that_is_there(serve, quiet, is_tracing):
    served = await serve(health=raising(grpc.aio.InternalError("a call of the handler's own")), tracing=is_tracing)
    async with asyncio.timeout(20):
        assert type(await refused(served.stub.Health(HealthRequest()))) is InternalError
        while "call_failed" not in events(quiet):
            await asyncio.sleep(0.01)


async def test_a_caller_that_leaves_a_stream_closes_the_handlers_generator(serve):
    left = asyncio.Event()

    async def steps(_request, _context):
        try:
            for number in range(1_000_000):
                yield StepEvent(sequence=number)
                await asyncio.sleep(0)
        finally:
            left.set()

    served = await serve(steps=steps)
    call = served.stub.StreamSteps(TaskRequest())
    await anext(aiter(call))
    call.cancel()
    async with asyncio.timeout(5):
        await left.wait()


async def test_a_unary_call_without_a_deadline_gets_one(serve, monkeypatch):
    async def health(_request, context):
        assert context.time_remaining() is None
        assert DEADLINE.get() is not None
        await asyncio.sleep(30)

    monkeypatch.setattr(interceptors, "DEFAULT_DEADLINE_S", 0.1)
    served = await serve(health=health)
    async with asyncio.timeout(5):
        error = await refused(served.stub.Health(HealthRequest()))
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.message == "no answer within 0.1 s"


async def test_tasks_and_watches_may_take_longer_than_the_imposed_deadline(serve, monkeypatch):
    seen = []

    async def run_task(_request, _context):
        seen.append(DEADLINE.get())
        await asyncio.sleep(0.1)
        return TaskResponse(output="late")

    async def steps(_request, _context):
        seen.append(DEADLINE.get())
        await asyncio.sleep(0.1)
        yield StepEvent(sequence=1)

    monkeypatch.setattr(interceptors, "DEFAULT_DEADLINE_S", 0.02)
    served = await serve(run_task=run_task, steps=steps)
    assert (await served.stub.RunTask(TaskRequest())).output == "late"
    assert [event.sequence async for event in served.stub.StreamSteps(TaskRequest())] == [1]
    assert seen == [None, None]


async def test_the_callers_own_deadline_counts(serve):
    async def health(_request, _context):
        await asyncio.sleep(30)

    served = await serve(health=health)
    before = finished(HEALTH, "DEADLINE_EXCEEDED")
    error = await refused(served.stub.Health(HealthRequest(), timeout=0.1))
    assert error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        while finished(HEALTH, "DEADLINE_EXCEEDED") == before:
            await asyncio.sleep(0.01)


async def test_a_timeout_inside_of_the_handler_is_not_taken_for_the_calls_deadline(serve, quiet):
    async def health(_request, _context):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)

    served = await serve(health=health)
    error = await refused(served.stub.Health(HealthRequest()))
    assert type(error) is InternalError
    assert "call_failed" in events(quiet)


@pytest.fixture
def signer():
    return Signer("adder-1")


@pytest.fixture
def verifier(signer):
    async def lookup(key_id):
        if key_id != signer.key_id:
            raise KeyNotFoundError("nobody")
        return IssuerKey(signer.public_key, "adder", frozenset({"add@^1"}))

    return Verifier(lookup)


def grant_of(**changes):
    return Grant(**({"tenant": "t-1", "principal": "p-1", "agent_id": "adder", "task_id": "t"} | changes))


async def tell_caller(_request, _context):
    caller = CALLER.get()
    return HealthResponse(agent_id=f"{caller.tenant}/{caller.principal}", draining=caller.grant is not None)


async def test_a_call_without_a_grant_is_the_development_principals(serve, verifier):
    served = await serve(health=tell_caller, verifier=verifier)
    answer = await served.stub.Health(HealthRequest())
    assert (answer.agent_id, answer.draining) == ("default/default", False)
    assert CALLER.get() == Caller()
    assert CALLER.get().tool_scopes == ["*"]


async def test_a_proper_grant_says_who_calls(serve, verifier, signer):
    served = await serve(health=tell_caller, verifier=verifier)
    token = signer.sign(grant_of(tools=["add@1.0.0"]))
    answer = await served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, token)])
    assert (answer.agent_id, answer.draining) == ("t-1/p-1", True)


async def test_what_is_logged_in_a_call_under_a_grant_names_its_task_and_in_others_none(serve, verifier, signer):
    async def health(_request, _context):
        return HealthResponse(agent_id=structlog.contextvars.get_contextvars().get("task_id", "none"))

    served = await serve(health=health, verifier=verifier)
    token = signer.sign(grant_of(task_id="t7"))
    assert (await served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, token)])).agent_id == "t7"
    assert (await served.stub.Health(HealthRequest())).agent_id == "none"


async def test_whoever_calls_under_a_grant_holds_its_scopes_for_tools_and_none_for_itself(serve, verifier, signer):
    async def tell_scopes(_request, _context):
        caller = CALLER.get()
        return HealthResponse(agent_id=" ".join(caller.tool_scopes), draining=bool(caller.scopes))

    served = await serve(health=tell_scopes, verifier=verifier)
    token = signer.sign(grant_of(scopes=["tools:write", "mail", "*"]))
    answer = await served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, token)])
    assert (answer.agent_id, answer.draining) == ("* mail tools:write", False)


async def test_the_grant_of_a_call_opens_only_what_is_open_to_calls(serve):
    registry = Signer("registry-1")

    async def lookup(_key_id):
        return IssuerKey(registry.public_key, "", frozenset())

    served = await serve(health=tell_caller, verifier=Verifier(lookup))
    call = registry.sign(grant_of(agent_id="registry", task_id="call-k"))
    error = await refused(served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, call)]))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    task = registry.sign(grant_of(agent_id="registry", task_id="t", root_task_id="t"))
    answer = await served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, task)])
    assert answer.agent_id == "t-1/p-1"


@pytest.mark.parametrize("kind", ["forged", "unsigned", "expired", "stranger", "another agent", "wider", "garbage"])
async def test_a_grant_that_is_not_good_is_unauthenticated(serve, verifier, signer, kind):
    good = SignedGrant.FromString(signer.sign(grant_of()))
    expired = grant_of()
    expired.expire_time.FromSeconds(1)
    token = {
        "forged": SignedGrant(
            grant=grant_of(tenant="t-2").SerializeToString(), signature=good.signature, key_id=good.key_id
        ),
        "unsigned": SignedGrant(grant=good.grant, key_id=good.key_id),
        "expired": SignedGrant.FromString(signer.sign(expired)),
        "stranger": SignedGrant.FromString(Signer("stranger").sign(grant_of())),
        "another agent": SignedGrant.FromString(signer.sign(grant_of(agent_id="banker"))),
        "wider": SignedGrant.FromString(signer.sign(grant_of(tools=["bank.pay@1.0.0"]))),
        "garbage": SignedGrant(grant=b"\xff", key_id=good.key_id, signature=good.signature),
    }[kind]
    served = await serve(health=tell_caller, verifier=verifier)
    error = await refused(served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, token.SerializeToString())]))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "GRANT_INVALID")


async def test_a_service_that_takes_no_grants_ignores_them(serve):
    served = await serve(health=tell_caller)
    answer = await served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, b"garbage")])
    assert answer.agent_id == "default/default"


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (None, "OK"),
        (raising(InvalidRequestError("no")), "INVALID_ARGUMENT"),
        (raising(asyncio.CancelledError()), "ABORTED"),
    ],
    ids=["fine", "refused", "leaked"],
)
async def test_calls_are_counted_by_method_and_status(serve, behave, code):
    served = await serve(health=behave)
    before = finished(HEALTH, code)
    await asyncio.gather(*(served.stub.Health(HealthRequest()) for _ in range(3)), return_exceptions=True)
    async with asyncio.timeout(5):  # the caller may know before the server has counted
        while finished(HEALTH, code) < before + 3:
            await asyncio.sleep(0.01)
    assert finished(HEALTH, code) == before + 3


async def test_a_handler_that_writes_by_itself_works_like_a_generator(serve, is_tracing):
    served = await serve(tracing=is_tracing)
    watch = HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVING
    await served.server.set_serving(is_serving=False)
    assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


OVERLOADED = ("RESOURCE_EXHAUSTED", "OVERLOADED", 1, "process")


def facts(error):
    return (error.code.name, error.reason, error.retry_after_s, error.metadata["limit"])


async def test_calls_beyond_the_bound_are_refused_and_the_others_are_not_disturbed(serve, is_tracing):
    gate, inside = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(_request, _context):
        inside.release()
        await gate.wait()
        return HealthResponse(agent_id="late")

    served = await serve(health=wait, max_calls=2, tracing=is_tracing)
    open_calls = [asyncio.ensure_future(served.stub.Health(HealthRequest())) for _ in range(2)]
    for _ in open_calls:
        await inside.acquire()
    before = finished(HEALTH, "RESOURCE_EXHAUSTED")
    for _ in range(3):
        assert facts(await refused(served.stub.Health(HealthRequest()))) == OVERLOADED
    assert facts(await refused(served.channel.unary_unary(HEALTH)(b"\xff\xff"))) == OVERLOADED  # not even read
    assert finished(HEALTH, "RESOURCE_EXHAUSTED") == before + 4
    gate.set()
    assert [(await call).agent_id for call in open_calls] == ["late", "late"]
    assert (await served.stub.Health(HealthRequest())).agent_id == "late"


async def test_streams_have_a_bound_of_their_own(serve):
    async def steps(_request, _context):
        yield StepEvent(sequence=1)
        await asyncio.sleep(60)

    served = await serve(steps=steps, max_calls=1, max_streams=1)
    first = served.stub.StreamSteps(TaskRequest())
    assert (await first.read()).sequence == 1
    error = await refused(served.stub.StreamSteps(TaskRequest()).read())
    assert facts(error) == OVERLOADED
    assert (await served.stub.Health(HealthRequest())).agent_id == "probe"
    first.cancel()
    async with asyncio.timeout(5):
        while True:
            second = served.stub.StreamSteps(TaskRequest())
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert (await second.read()).sequence == 1
                break
            await asyncio.sleep(0.01)
    second.cancel()


async def test_probes_are_never_refused(serve):
    gate = asyncio.Event()

    async def wait(_request, _context):
        await gate.wait()
        return HealthResponse()

    served = await serve(health=wait, max_calls=1)
    waiting = asyncio.ensure_future(served.stub.Health(HealthRequest()))
    await asyncio.sleep(0.05)
    for _ in range(3):
        reply = await HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    gate.set()
    await waiting


async def read_to_the_end(call):
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        if isinstance(call, grpc.aio.UnaryStreamCall):
            async for _ in call:
                pass
        await call.code()


@pytest.mark.parametrize("end", ["cancel", "deadline", "fail", "full window"])
async def test_a_call_that_ends_early_gives_its_place_back(serve, quiet, end):
    async def wait(_request, _context):
        await asyncio.sleep(0.05 if end == "fail" else 60)
        raise ValueError("broken")

    async def steps(_request, _context):
        for number in range(10_000):  # more than a reader that does not read takes
            yield StepEvent(sequence=1, task_id="x" * 100_000)
            await asyncio.sleep(0 if end == "full window" else 0.05)
            if end == "fail" and number:
                raise ValueError("broken")

    served = await serve(health=wait, steps=steps, max_calls=5, max_streams=5)
    for turn in range(1, 5):
        timeout = 1.5 if end == "deadline" else None
        calls = [served.stub.Health(HealthRequest(), timeout=timeout) for _ in range(5)]
        streams = [served.stub.StreamSteps(TaskRequest(), timeout=timeout) for _ in range(5)]
        assert [(await anext(aiter(stream))).sequence for stream in streams] == [1] * 5
        await asyncio.sleep(0.1)
        for call in (*calls, *streams):
            if end in ("cancel", "full window"):
                call.cancel()
            await read_to_the_end(call)
        async with asyncio.timeout(20):
            while events(quiet).count("call_answered") < turn * 10:
                await asyncio.sleep(0.01)


async def test_when_to_try_again_is_told_in_metadata_too(serve):
    served = await serve(health=raising(StoreUnavailableError("away", retry_after_s=1.2)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Health(HealthRequest())
    assert dict(caught.value.trailing_metadata())["retry-after"] == "2"
