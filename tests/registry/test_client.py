"""The registry as other services see it: also while it is away, and after it has come back."""

import asyncio
import contextlib

import pytest
import structlog

from meshwright.cli import ports
from meshwright.core import server as server_module
from meshwright.core.channel import Channels
from meshwright.core.errors import AbortedError, KeyNotFoundError, ToolNotFoundError, UnavailableError
from meshwright.core.process import ended
from meshwright.core.settings import Settings
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from meshwright.registry import client as client_module
from meshwright.registry import tool, tool_serving
from meshwright.registry.client import RegistryClient
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.store import CatalogStore
from meshwright.registry.tool_serving import keep_registered


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_S", 0.02)


@pytest.fixture
async def absent():
    """A client of a registry that is not there."""
    channels = Channels()
    yield RegistryClient(channels, "127.0.0.1:1")
    await channels.close()


def card(agent_id="adder", **fields):
    return AgentCard(agent_id=agent_id, version="1.0.0", **fields)


def endpoint(instance_id="adder-1"):
    return Endpoint(instance_id=instance_id, target="127.0.0.1:7", public_key=bytes(32))


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


async def until(condition, patience_s=10):
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_registry_that_stays_away_is_told_once_and_not_at_each_try(absent, monkeypatch):
    monkeypatch.setattr(client_module, "BEAT_S", 0.02)
    tries = []

    def note(name):
        method = getattr(absent, name)

        async def noted(*arguments):
            tries.append(name)
            return await method(*arguments)

        monkeypatch.setattr(absent, name, noted)

    async def follow():
        async for _ in absent.watch_tools(0):
            pass

    note("list_agents")
    note("announce")
    with structlog.testing.capture_logs() as told:
        chores = [
            asyncio.create_task(absent.keep_known()),
            asyncio.create_task(absent.keep_announced(card(), endpoint())),
            asyncio.create_task(follow()),
        ]
        await until(lambda: min(tries.count("list_agents"), tries.count("announce")) >= 5 and len(told) >= 3)
        await ended(*chores)
    assert sorted(line["event"] for line in told) == ["announce_failed", "tools_watch_broke", "watch_broke"]


async def test_a_connection_that_a_server_ends_for_its_age_is_no_news(store, monkeypatch):
    aged = ("grpc.max_connection_age_ms", "grpc.max_connection_age_grace_ms")
    options = [one for one in server_module.OPTIONS if one[0] not in aged]
    monkeypatch.setattr(server_module, "OPTIONS", (*options, (aged[0], 300), (aged[1], 100)))
    process = RegistryProcess(Settings(store_url=store.url, drain_s=0, tracing=False))
    channels = Channels()
    client = RegistryClient(channels, await process.start())

    async def follow():
        async for _ in client.watch_tools(0):
            pass

    with structlog.testing.capture_logs() as told:
        chores = [asyncio.create_task(client.keep_known()), asyncio.create_task(follow())]
        await until(lambda: [line["event"] for line in told].count("watches_anew") >= 3, 50)
        await ended(*chores)
    await channels.close()
    await process.stop()
    assert {"watch_broke", "tools_watch_broke"}.isdisjoint(line["event"] for line in told)
    assert {line["log_level"] for line in told if line["event"] == "watches_anew"} == {"debug"}


async def test_a_registry_that_comes_back_is_told(store, monkeypatch):
    monkeypatch.setattr(client_module, "BEAT_S", 0.02)
    port = ports.reserve("127.0.0.1", set())
    channels = Channels()
    client = RegistryClient(channels, f"127.0.0.1:{port}")
    with structlog.testing.capture_logs() as told:
        chores = [
            asyncio.create_task(client.keep_known()),
            asyncio.create_task(client.keep_announced(card(), endpoint())),
        ]
        await until(lambda: len(told) >= 2)
        process = RegistryProcess(Settings(store_url=store.url, port=port, drain_s=0, tracing=False))
        await process.start()
        await until(lambda: {"watches_again", "announced_again"} <= {line["event"] for line in told})
        await ended(*chores)
    await channels.close()
    await process.stop()


async def test_tools_that_cannot_be_registered_are_told_once_and_when_they_are_again(store, monkeypatch):
    monkeypatch.setattr(tool_serving, "REPEAT_S", 0.02)
    port = ports.reserve("127.0.0.1", set())
    channels, tries = Channels(), []
    client = RegistryClient(channels, f"127.0.0.1:{port}")
    register = client.register

    async def noted(contract):
        tries.append(contract.name)
        return await register(contract)

    monkeypatch.setattr(client, "register", noted)
    with structlog.testing.capture_logs() as told:
        keeping = asyncio.create_task(keep_registered(client, [add], "127.0.0.1:7"))
        await until(lambda: len(tries) >= 5)
        process = RegistryProcess(Settings(store_url=store.url, port=port, drain_s=0, tracing=False))
        await process.start()
        await until(lambda: any(line["event"] == "registered_again" for line in told))
        await ended(keeping)
    assert [line["event"] for line in told if line["event"].startswith("regist")] == [
        "register_failed",
        "registered_again",
    ]
    await channels.close()
    await process.stop()


async def test_tools_are_registered_and_resolved(registry):
    stored = await registry.client.register(add.contract("127.0.0.1:7"))
    assert await registry.client.resolve(["add@^1", "add"]) == [stored, stored]
    assert await registry.client.resolve([]) == []
    with pytest.raises(ToolNotFoundError):
        await registry.client.resolve(["add", "missing"])


async def test_a_resolution_says_at_which_revision_it_was_made(registry):
    empty = await registry.client.resolution([])
    assert (list(empty.tools), empty.revision) == ([], 0)
    stored = await registry.client.register(add.contract("127.0.0.1:7"))
    found = await registry.client.resolution(["add"])
    assert list(found.tools) == [stored]
    assert (await registry.client.resolution([])).revision == found.revision > 0


async def test_tools_are_watched_also_over_a_registry_that_goes_away_and_comes_back(store):
    def process(port=0):
        return RegistryProcess(Settings(store_url=store.url, port=port, drain_s=0, tracing=False))

    first = process()
    target = await first.start()
    channels = Channels()
    client = RegistryClient(channels, target)
    await client.register(add.contract("127.0.0.1:1"))
    begun = (await client.resolution([])).revision
    seen = []

    async def follow():
        after = begun
        while True:
            with contextlib.suppress(AbortedError):  # so a registry says that it stops
                async for change in client.watch_tools(after):
                    after = change.revision
                    seen.append((change.revision, change.tool.endpoint))

    following = asyncio.create_task(follow())
    await client.register(add.contract("127.0.0.1:2"))
    await until(lambda: len(seen) == 1)
    await first.stop()
    catalog = CatalogStore(store)
    contract = add.contract("127.0.0.1:3")
    await catalog.register("add", "1.0.0", b"", contract.digest, "127.0.0.1:3", seen=1)
    second = process(int(target.rpartition(":")[2]))
    await second.start()
    await until(lambda: len(seen) == 2)
    await client.register(add.contract("127.0.0.1:4"))
    await until(lambda: len(seen) == 3)
    assert seen == [(begun + 1, "127.0.0.1:2"), (begun + 2, "127.0.0.1:3"), (begun + 3, "127.0.0.1:4")]
    following.cancel()
    await channels.close()
    await second.stop()


async def test_who_watches_what_is_forgotten_is_told_so(registry, store):
    await registry.client.register(add.contract("127.0.0.1:1"))
    begun = (await registry.client.resolution([])).revision
    for number in range(2, 5):
        await registry.client.register(add.contract(f"127.0.0.1:{number}"))
    await store.client.xtrim("mw:{mesh}:changes:tools", maxlen=1, approximate=False)
    with pytest.raises(AbortedError):
        await anext(registry.client.watch_tools(begun))


async def test_an_instance_is_announced_found_and_withdrawn(registry):
    await registry.client.announce(card(), endpoint())
    assert [one.agent_id for one in await registry.client.list_agents()] == ["adder"]
    await registry.client.withdraw("adder", "adder-1")
    assert await registry.client.list_agents() == []


async def test_a_key_is_asked_for_once_and_then_remembered_for_a_while(registry, monkeypatch):
    await registry.client.announce(card(tools=["add"]), endpoint())
    key = await registry.client.key("adder-1")
    assert (key.public_key, key.agent_id, key.tools) == (bytes(32), "adder", frozenset({"add"}))
    await registry.client.withdraw("adder", "adder-1")
    assert await registry.client.key("adder-1") == key
    monkeypatch.setattr(client_module, "KEY_KEPT_S", 0)
    with pytest.raises(KeyNotFoundError):
        await registry.client.key("adder-1")


async def test_a_watch_begins_with_who_is_here_and_follows(registry):
    await registry.client.announce(card("early"), endpoint("early-1"))
    watch = registry.client.watch()
    assert sorted(await anext(watch)) == ["early"]
    await registry.client.announce(card("late"), endpoint("late-1"))
    async with asyncio.timeout(5):
        while sorted(await anext(watch)) != ["early", "late"]:
            pass
        await registry.client.withdraw("early", "early-1")
        while sorted(await anext(watch)) != ["late"]:
            pass
    await watch.aclose()


async def test_what_is_known_stays_true_while_agents_come_and_go(registry):
    keeping = asyncio.create_task(registry.client.keep_known())
    assert await registry.client.find("adder") is None
    await registry.client.announce(card(), endpoint())
    await until(lambda: "adder" in registry.client.known)
    assert (await registry.client.find("adder")).agent_id == "adder"
    await registry.client.withdraw("adder", "adder-1")
    await until(lambda: "adder" not in registry.client.known)
    keeping.cancel()


async def test_what_is_known_survives_a_registry_that_goes_away_and_comes_back(store):
    def process(port=0):
        return RegistryProcess(Settings(store_url=store.url, port=port, drain_s=0, tracing=False))

    first = process()
    target = await first.start()
    channels = Channels()
    client = RegistryClient(channels, target)
    await client.announce(card(), endpoint())
    keeping = asyncio.create_task(client.keep_known())
    await until(lambda: "adder" in client.known)
    await first.stop()
    await asyncio.sleep(0.1)
    assert "adder" in client.known
    second = process(int(target.rpartition(":")[2]))
    await second.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await client.announce(card("other"), endpoint("other-1"))
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
    await until(lambda: sorted(client.known) == ["adder", "other"])
    keeping.cancel()
    await channels.close()
    await second.stop()


async def test_an_announcement_is_kept_up_also_in_a_store_that_was_emptied(registry, store, monkeypatch):
    monkeypatch.setattr(client_module, "BEAT_S", 0.02)
    keeping = asyncio.create_task(registry.client.keep_announced(card(), endpoint()))
    watching = asyncio.create_task(registry.client.keep_known())
    await until(lambda: "adder" in registry.client.known)
    await store.client.flushall()
    async with asyncio.timeout(5):
        while not await registry.client.list_agents():
            await asyncio.sleep(0.01)
    await until(lambda: "adder" in registry.client.known)
    keeping.cancel()
    watching.cancel()


async def test_a_registry_that_is_away_is_told_after_some_patience(absent):
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer"):
        await absent.wait_until_there(0.05)


async def test_a_registry_that_comes_is_waited_for(registry):
    await registry.client.wait_until_there(5)


async def test_withdrawing_from_a_registry_that_is_away_is_no_error(absent):
    await absent.withdraw("adder", "adder-1")


async def test_nobody_is_found_before_the_directory_was_seen(absent, monkeypatch):
    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.05)
    with pytest.raises(UnavailableError):
        await absent.find("adder")
