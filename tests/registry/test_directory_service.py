"""AgentDirectoryService over real gRPC: who is here, and how watchers learn of it."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.core import channel
from meshwright.core.errors import AbortedError, AgentNotFoundError, InvalidRequestError, KeyNotFoundError
from meshwright.core.settings import Settings
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as pb
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.registry import directory_service
from meshwright.registry.serving import RegistryProcess


@pytest.fixture
def announce(registry):
    async def announce_(agent_id="adder", instance_id="adder-1", *, lease_s=60.0, version="1.0.0", **card):
        request = pb.AnnounceAgentRequest(
            agent=pb.AgentCard(agent_id=agent_id, version=version, **card),
            endpoint=pb.Endpoint(instance_id=instance_id, target="127.0.0.1:7", public_key=bytes(range(32))),
            lease=Duration(seconds=int(lease_s), nanos=int(lease_s % 1 * 1e9)),
        )
        return await channel.unary(registry.agents.AnnounceAgent, request, timeout_s=5)

    return announce_


@pytest.fixture
def ask(registry):
    async def ask_(method, **fields):
        request_type = getattr(pb, f"{method}Request")
        return await channel.unary(getattr(registry.agents, method), request_type(**fields), timeout_s=5)

    return ask_


@pytest.fixture
def watch(registry, watching):
    """Opens watches: `watch(after_revision=...)` is a function that waits for the next change."""
    return lambda **fields: watching(registry.agents.WatchAgents, pb.WatchAgentsRequest(**fields))


async def test_an_announced_agent_is_here(announce, ask):
    ends = (await announce(skills=["sums"], tools=["add@^1"], lease_s=30)).lease_expire_time
    assert ends.ToSeconds() == pytest.approx(time.time() + 30, abs=5)
    card = await ask("GetAgent", agent_id="adder")
    assert (card.version, list(card.skills), list(card.tools)) == ("1.0.0", ["sums"], ["add@^1"])
    (endpoint,) = card.endpoints
    assert (endpoint.instance_id, endpoint.target, endpoint.public_key) == ("adder-1", "127.0.0.1:7", b"")
    assert abs(endpoint.lease_expire_time.ToMilliseconds() - ends.ToMilliseconds()) < 5


async def test_an_agent_that_is_not_here_is_not_found_and_a_name_that_is_none_refused(ask):
    with pytest.raises(AgentNotFoundError):
        await ask("GetAgent", agent_id="adder")
    with pytest.raises(InvalidRequestError):
        await ask("GetAgent", agent_id="../adder")


async def test_a_bad_announcement_is_refused_with_its_field(announce):
    with pytest.raises(InvalidRequestError) as caught:
        await announce("Adder")
    assert list(caught.value.fields) == ["agent.agent_id"]
    with pytest.raises(InvalidRequestError) as caught:
        await announce(lease_s=600)
    assert list(caught.value.fields) == ["lease"]


async def test_agents_are_listed_on_pages_by_their_ids(announce, ask):
    for name in ("c", "a-1", "a", "b", "a1"):
        await announce(name, f"{name}-instance")
    found, token = [], ""
    while True:
        page = await ask("ListAgents", page_size=2, page_token=token)
        found.extend(card.agent_id for card in page.agents)
        token = page.next_page_token
        if not token:
            break
    assert found == ["a", "a-1", "a1", "b", "c"]
    with pytest.raises(InvalidRequestError):
        await ask("ListAgents", page_size=201)


async def test_an_agent_is_here_until_its_last_instance_is_withdrawn(announce, ask):
    await announce(instance_id="adder-1")
    await announce(instance_id="adder-2")
    await ask("WithdrawAgent", agent_id="adder", instance_id="adder-1")
    assert [one.instance_id for one in (await ask("GetAgent", agent_id="adder")).endpoints] == ["adder-2"]
    await ask("WithdrawAgent", agent_id="other", instance_id="adder-2")
    assert (await ask("GetAgent", agent_id="adder")).agent_id == "adder"
    for _ in range(2):
        await ask("WithdrawAgent", agent_id="adder", instance_id="adder-2")
    with pytest.raises(AgentNotFoundError):
        await ask("GetAgent", agent_id="adder")


async def test_a_key_is_read_while_its_instance_lives(announce, ask, registry):
    await announce(tools=["b", "a@^1"])
    key = await ask("GetKey", key_id="adder-1")
    assert (key.public_key, key.agent_id, list(key.tools)) == (bytes(range(32)), "adder", ["a@^1", "b"])
    await ask("WithdrawAgent", agent_id="adder", instance_id="adder-1")
    with pytest.raises(KeyNotFoundError):
        await ask("GetKey", key_id="adder-1")
    own = await ask("GetKey", key_id=registry.process.signer.key_id)
    assert (own.public_key, own.agent_id) == (registry.process.signer.public_key, "")


async def test_nobody_takes_the_registrys_own_key(announce, ask, registry):
    own = registry.process.signer
    await announce("mallory", own.key_id)
    assert (await ask("GetKey", key_id=own.key_id)).public_key == own.public_key


async def test_a_lease_that_ends_removes_the_instance_and_its_key(announce, ask, watch, registry, monkeypatch):
    monkeypatch.setattr(directory_service, "SWEEP_S", 0.05)
    following = watch()
    await announce(lease_s=1)
    assert not (await following()).removed
    change = await following()
    assert (change.agent, change.removed) == (pb.AgentCard(agent_id="adder"), True)
    with pytest.raises(KeyNotFoundError):
        await ask("GetKey", key_id="adder-1")


async def test_renewals_keep_an_instance_and_are_no_news(announce, ask, watch):
    following = watch()
    ends = [(await announce(lease_s=30)).lease_expire_time.ToMilliseconds()]
    first = await following()
    for _ in range(3):
        await asyncio.sleep(0.01)
        ends.append((await announce(lease_s=30)).lease_expire_time.ToMilliseconds())
    assert ends == sorted(set(ends))
    (endpoint,) = (await ask("GetAgent", agent_id="adder")).endpoints
    assert endpoint.lease_expire_time.ToMilliseconds() == ends[-1]
    await announce("other", "other-1")
    change = await following()
    assert (change.agent.agent_id, change.revision) == ("other", first.revision + 1)


async def test_a_watch_sees_agents_come_change_and_go_within_a_second(announce, ask, watch):
    await announce("early", "early-1")
    following = watch()
    assert (await following()).agent.agent_id == "early"
    steps = [
        (announce(), False, "1.0.0"),
        (announce(version="1.1.0", skills=["sums"]), False, "1.1.0"),
        (ask("WithdrawAgent", agent_id="adder", instance_id="adder-1"), True, ""),
    ]
    took = []
    for step, is_removed, version in steps:
        await step
        start = time.monotonic()
        change = await following()
        took.append(time.monotonic() - start)
        assert (change.agent.agent_id, change.removed, change.agent.version) == ("adder", is_removed, version)
    assert min(took) < 1  # a busy machine may stand still in between


async def test_an_agent_that_loses_one_of_its_instances_is_changed_not_removed(announce, ask, watch):
    await announce(instance_id="adder-1")
    await announce(instance_id="adder-2")
    following = watch()
    assert len((await following()).agent.endpoints) == 2
    await ask("WithdrawAgent", agent_id="adder", instance_id="adder-1")
    change = await following()
    assert not change.removed
    assert [one.instance_id for one in change.agent.endpoints] == ["adder-2"]


async def test_who_lists_and_then_watches_does_not_keep_an_agent_that_went_in_between(announce, ask, watch):
    await announce("stays", "stays-1")
    await announce("goes", "goes-1")
    listed = {card.agent_id for card in (await ask("ListAgents")).agents}
    await ask("WithdrawAgent", agent_id="goes", instance_id="goes-1")
    following = watch()
    for _ in range(2):
        change = await following()
        if change.removed:
            listed.discard(change.agent.agent_id)
    assert listed == {"stays"}


async def test_a_broken_watch_goes_on_after_the_last_revision_seen(announce, ask, watch):
    await announce("a", "a-1")
    seen = (await watch()()).revision
    await announce("b", "b-1")
    await announce("c", "c-1")
    await ask("WithdrawAgent", agent_id="a", instance_id="a-1")
    following = watch(after_revision=seen)
    changes = {}
    while len(changes) < 3:
        change = await following()
        changes[change.agent.agent_id] = change.removed
    assert changes == {"b": False, "c": False, "a": True}


async def test_every_watch_hears_of_every_change(announce, watch):
    watches = [watch() for _ in range(10)]
    opening = [asyncio.create_task(following()) for following in watches]
    await asyncio.sleep(0.1)
    await announce()
    assert {(await one).agent.agent_id for one in opening} == {"adder"}


async def test_a_watch_of_changes_that_are_forgotten_is_told_to_begin_anew(announce, watch, store):
    for number in range(4):
        await announce(f"a{number}", f"a{number}-1")
    await store.client.xtrim("mw:{mesh}:changes", maxlen=1, approximate=False)
    with pytest.raises(AbortedError):
        await watch(after_revision=1)()


async def test_a_watch_of_a_directory_that_was_emptied_is_told_to_begin_anew(announce, watch, store):
    await announce("a", "a-1")
    await announce("b", "b-1")
    following = watch()
    for _ in range(2):
        await following()
    await asyncio.sleep(0.1)
    await store.client.flushall()
    with pytest.raises(AbortedError):
        await following()
    await announce("c", "c-1")
    assert (await watch()()).agent.agent_id == "c"


async def test_a_registry_that_stops_does_not_wait_for_its_watches(announce, watch, registry):
    await announce()
    following = watch()
    await following()
    registry.process._server._settings = registry.process._settings.model_copy(update={"drain_s": 30.0})
    start = time.monotonic()
    await registry.process.stop()
    assert time.monotonic() - start < 20
    with pytest.raises((AbortedError, StopAsyncIteration)):
        await following()


async def test_an_unavailable_store_is_told_as_such(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    process = RegistryProcess(Settings(store_url=own.url, drain_s=0, tracing=False))
    async with grpc.aio.insecure_channel(await process.start()) as plain:
        stub = AgentDirectoryServiceStub(plain)
        await stub.ListAgents(pb.ListAgentsRequest())
        own.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListAgents(pb.ListAgentsRequest())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        own.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await stub.ListAgents(pb.ListAgentsRequest())
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
    await process.stop()
