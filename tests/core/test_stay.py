"""Stays: streams and waits of callers from outside end with the key or token that has opened them. Over real gRPC."""

import asyncio
import time

import grpc
import pytest
import structlog

from meshwright.core import stay, telemetry
from meshwright.core.api_key import ApiKeys
from meshwright.core.credential import Credential
from meshwright.core.errors import KeyExpiredError, KeyRevokedError, MeshError, StoreUnavailableError, TokenExpiredError
from meshwright.core.grant import Signer, Verifier
from meshwright.core.identity import IDENTITY_KEY, sign
from meshwright.core.revocations import KEPT_MS, PLACE, Revocations
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse

EDGE = Signer("edge-1")
SCOPES = ["tasks:write"]
STREAM = "/agents.v1.AgentService/StreamSteps"


@pytest.fixture
def verifier():
    async def lookup(_key_id):
        return IssuerKey(EDGE.public_key, "", frozenset(), is_edge=True)

    return Verifier(lookup)


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(stay, "LOOK_S", 0.05)


@pytest.fixture
def keys(store):
    return ApiKeys(store)


async def made(keys, principal="ann"):
    return (await keys.create(principal, SCOPES, tenant="acme", principal=principal))[1]


def shown(key_id="", ends=0):
    return [(IDENTITY_KEY, sign(EDGE, "acme", "ann", SCOPES, Credential(key_id, ends)))]


def in_ms(seconds):
    return int((time.time() + seconds) * 1000)


async def waiting(_request, _context):
    yield StepEvent(sequence=1)
    await asyncio.Event().wait()


async def opened(served, metadata, prompt=""):
    stream = served.stub.StreamSteps(TaskRequest(prompt=prompt), metadata=metadata)
    assert (await stream.read()).sequence == 1
    return stream


async def drained(stream):
    while await stream.read() is not grpc.aio.EOF:
        pass


async def end_of(stream) -> MeshError:
    async with asyncio.timeout(5):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(stream)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, caught.value
    return MeshError.from_rpc(caught.value)


async def asked(store):
    """How often the store was asked what was revoked."""
    stats = await store.client.info("commandstats")
    return stats.get("cmdstat_zrangebyscore", {}).get("calls", 0)


async def test_streams_of_a_revoked_key_end_within_two_seconds_and_no_others(serve, verifier, keys, store):
    served = await serve(steps=waiting, verifier=verifier, revocations=Revocations(store), auth="keys")
    mine, other = await made(keys), await made(keys)
    ending = [await opened(served, shown(mine.key_id)) for _ in range(3)]
    staying = await opened(served, shown(other.key_id))
    inside = await opened(served, shown(ends=in_ms(60)))
    began = time.monotonic()
    await keys.revoke(mine.key_id)
    errors = [await end_of(stream) for stream in ending]
    assert time.monotonic() - began < 10  # two, and what a busy machine adds; by themselves they would stay open
    assert {type(error) for error in errors} == {KeyRevokedError}
    assert mine.key_id in errors[0].message
    assert not staying.done()
    assert not inside.done()


async def test_a_key_that_was_revoked_just_before_its_stream_began_does_not_keep_it(serve, verifier, keys, store, soon):
    served = await serve(steps=waiting, verifier=verifier, revocations=Revocations(store), auth="keys")
    first, second = await made(keys), await made(keys)
    await opened(served, shown(first.key_id))
    identity = shown(second.key_id)
    await keys.revoke(second.key_id)
    before = await asked(store)
    while await asked(store) < before + 3:
        await asyncio.sleep(0.02)
    assert type(await end_of(await opened(served, identity))) is KeyRevokedError


@pytest.mark.parametrize(("key_id", "kind"), [("a" * 12, KeyExpiredError), ("", TokenExpiredError)])
async def test_streams_end_with_the_time_of_a_key_or_a_token(serve, verifier, soon, key_id, kind):
    served = await serve(steps=waiting, verifier=verifier, auth="keys,jwt")
    ends = in_ms(0.5)
    stream = await opened(served, shown(key_id, ends))
    assert type(await end_of(stream)) is kind
    assert ends <= in_ms(0) < ends + 20_000


async def test_a_stream_that_is_never_silent_says_why_it_ends(serve, verifier, keys, store, soon):
    async def talking(_request, _context):
        for number in range(1, 1_000_000):
            yield StepEvent(sequence=number)

    served = await serve(steps=talking, verifier=verifier, revocations=Revocations(store), auth="keys")
    key = await made(keys)
    stream = await opened(served, shown(key.key_id))
    await keys.revoke(key.key_id)
    assert type(await end_of(stream)) is KeyRevokedError


async def test_a_stream_whose_caller_takes_nothing_is_cut(serve, verifier, soon):
    has_ended = asyncio.Event()

    async def flooding(_request, _context):
        try:
            number = 0
            while number := number + 1:
                yield StepEvent(task_id="x" * 100_000, sequence=number)
        finally:
            has_ended.set()

    served = await serve(steps=flooding, verifier=verifier, auth="keys")
    stream = await opened(served, shown("a" * 12, in_ms(0.5)))
    async with asyncio.timeout(5):
        await has_ended.wait()
    stream.cancel()


async def test_a_call_that_waits_for_its_task_ends_too(serve, verifier, keys, store, soon):
    async def run_task(_request, _context):
        await asyncio.Event().wait()

    served = await serve(run_task=run_task, verifier=verifier, revocations=Revocations(store), auth="keys")
    key = await made(keys)
    before = await asked(store)
    call = served.stub.RunTask(TaskRequest(), metadata=shown(key.key_id))
    while await asked(store) == before:
        await asyncio.sleep(0.02)
    await keys.revoke(key.key_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 5)
    assert type(MeshError.from_rpc(caught.value)) is KeyRevokedError


async def test_what_ends_by_itself_ends_well_while_its_key_ends(serve, verifier, soon):
    async def brief(_request, _context):
        yield StepEvent(sequence=1)

    async def run_task(_request, _context):
        return TaskResponse(output="done")

    served = await serve(steps=brief, run_task=run_task, verifier=verifier, auth="keys")
    over = shown("a" * 12, in_ms(-10))
    assert [event.sequence async for event in served.stub.StreamSteps(TaskRequest(), metadata=over)] == [1]
    assert (await served.stub.RunTask(TaskRequest(), metadata=over)).output == "done"


async def test_the_store_is_asked_once_for_all_streams_and_only_while_there_are_any(serve, verifier, keys, store, soon):
    served = await serve(steps=waiting, verifier=verifier, revocations=Revocations(store), auth="keys")
    token = await opened(served, shown(ends=in_ms(60)))
    unnamed = await opened(await serve(steps=waiting, verifier=verifier, auth="none"), None)
    before = await asked(store)
    await asyncio.sleep(4 * stay.LOOK_S)
    assert await asked(store) == before
    streams = [await opened(served, shown((await made(keys)).key_id)) for _ in range(50)]
    before, began = await asked(store), time.monotonic()
    while await asked(store) < before + 3:
        await asyncio.sleep(0.01)
    assert await asked(store) - before <= (time.monotonic() - began) / stay.LOOK_S + 1
    for stream in (*streams, token, unnamed):
        stream.cancel()
    while telemetry.CALLS.labels(STREAM, "CANCELLED")._value.get() < len(streams) + 2:
        await asyncio.sleep(0.02)
    await asyncio.sleep(2 * stay.LOOK_S)
    quiet = await asked(store)
    await asyncio.sleep(4 * stay.LOOK_S)
    assert await asked(store) == quiet


async def test_a_revocation_during_an_outage_of_the_store_is_read_after_it(serve, verifier, keys, store, soon):
    revocations, failing = Revocations(store), asyncio.Event()
    since = revocations.since

    async def unreliable(moment_ms):
        if failing.is_set():
            await asyncio.Event().wait()
        return await since(moment_ms)

    revocations.since = unreliable
    served = await serve(steps=waiting, verifier=verifier, revocations=revocations, auth="keys")
    key = await made(keys)
    stream = await opened(served, shown(key.key_id))
    failing.set()
    expiring = await opened(served, shown("a" * 12, in_ms(0.3)))
    await keys.revoke(key.key_id)
    assert type(await end_of(expiring)) is KeyExpiredError
    assert not stream.done()
    failing.clear()
    assert type(await end_of(stream)) is KeyRevokedError


async def test_revocations_that_cannot_be_read_are_told_once_and_not_at_each_look(
    serve, verifier, keys, store, soon, monkeypatch
):
    revocations, failing, tries = Revocations(store), asyncio.Event(), []
    since = revocations.since

    async def unreliable(moment_ms):
        tries.append(moment_ms)
        if failing.is_set():
            raise StoreUnavailableError("away")
        return await since(moment_ms)

    monkeypatch.setattr(revocations, "since", unreliable)
    served = await serve(steps=waiting, verifier=verifier, revocations=revocations, auth="keys")
    failing.set()
    with structlog.testing.capture_logs() as lines:
        await opened(served, shown((await made(keys)).key_id))
        async with asyncio.timeout(20):
            while len(tries) < 4:
                await asyncio.sleep(0.01)
            failing.clear()
            while not any(line["event"] == "revocations_read_again" for line in lines):
                await asyncio.sleep(0.01)
    told = [line["event"] for line in lines if line["event"].startswith("revocations")]
    assert told == ["revocations_not_read", "revocations_read_again"]


async def test_revocations_are_forgotten_once_no_stream_can_be_that_old(keys, store):
    revocations = Revocations(store)
    key = await made(keys)
    await keys.revoke(key.key_id)
    now, revoked = await revocations.since(0)
    assert revoked == {key.key_id}
    assert (await revocations.since(now + 1))[1] == frozenset()
    assert 0 < await store.client.pttl(PLACE) <= KEPT_MS
    await revocations.note("b" * 12, now + KEPT_MS + 1)
    assert (await revocations.since(0))[1] == {"b" * 12}
