"""WatchTools over real gRPC: every change once, also for those who come back, and no silence about what is lost."""

import asyncio
import itertools
import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core.errors import AbortedError
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb

CHANGES = "mw:{mesh}:changes:tools"
SUNSET = Timestamp(seconds=1_900_000_000)


@pytest.fixture
def watch(registry, watching):
    """Opens watches: `watch(after_revision)` is a function that waits for the next change."""
    return lambda after=0: watching(registry.tools.WatchTools, pb.WatchToolsRequest(after_revision=after))


@pytest.fixture
def revision(ask):
    async def newest():
        return (await ask("ResolveTools")).revision

    return newest


async def test_a_watch_begins_with_every_registered_version_and_goes_on_with_changes(register, watch, revision):
    for name, version in (("b", "1.0.0"), ("a", "1.10.0"), ("a", "1.9.0")):
        await register(name=name, version=version)
    begun = await revision()
    following = watch()
    first = [await following() for _ in range(3)]
    assert [(one.tool.name, one.tool.version) for one in first] == [("a", "1.9.0"), ("a", "1.10.0"), ("b", "1.0.0")]
    assert [one.revision for one in first] == [0, 0, begun]
    stored = await register(name="c")
    change = await following()
    assert (change.revision, change.tool) == (begun + 1, stored)


async def test_what_is_registered_is_listed_over_many_reads(register, watch, revision):
    await asyncio.gather(*(register(name=f"t{number:03d}", version=f"1.{number}.0") for number in range(120)))
    following = watch()
    seen = [await following() for _ in range(120)]
    assert [one.tool.name for one in seen] == [f"t{number:03d}" for number in range(120)]
    assert [one.revision for one in seen] == [0] * 119 + [await revision()]


async def test_every_kind_of_change_is_seen_with_the_version_as_it_is_then(register, ask, watch, revision):
    await register(name="a", version="1.0.0")
    following = watch(await revision())
    moved = await register(name="a", version="1.0.0", endpoint="127.0.0.1:8")
    assert (await following()).tool == moved
    newer = await register(name="a", version="1.1.0")
    assert (await following()).tool == newer
    await ask("SetAlias", name="a", alias="stable", version="1.0.0")
    assert list((await following()).tool.aliases) == ["stable"]
    await ask("SetAlias", name="a", alias="stable", version="1.1.0")
    lost, gained = await following(), await following()
    assert [(one.tool.version, list(one.tool.aliases)) for one in (lost, gained)] == [
        ("1.0.0", []),
        ("1.1.0", ["stable"]),
    ]
    marked = await ask("DeprecateTool", name="a", version="1.0.0", sunset_time=SUNSET, replaced_by="a@^1")
    assert (await following()).tool == marked


async def test_what_changes_nothing_is_no_news(register, ask, watch, revision):
    await register(name="a")
    await ask("SetAlias", name="a", alias="stable", version="1.0.0")
    await ask("DeprecateTool", name="a", version="1.0.0", sunset_time=SUNSET)
    begun = await revision()
    following = watch(begun)
    await register(name="a")
    await ask("SetAlias", name="a", alias="stable", version="1.0.0")
    await ask("DeprecateTool", name="a", version="1.0.0", sunset_time=SUNSET)
    await register(name="b")
    change = await following()
    assert (change.revision, change.tool.name) == (begun + 1, "b")


async def test_a_watch_that_is_resumed_after_every_change_sees_each_exactly_once(register, ask, watch, revision):
    await register(name="t", version="1.0.0")
    begun = await revision()
    writing = asyncio.create_task(churn(register, ask))
    seen, after = [], begun
    while len(seen) < 60:
        change = await watch(after)()
        seen.append(change.revision)
        after = change.revision
    await writing
    assert seen == [begun + step for step in range(1, 61)]
    assert await revision() == begun + 60


async def churn(register, ask):
    """Makes sixty changes of every kind."""
    for number in range(12):
        await register(name="t", version=f"1.{number + 1}.0")
        await register(name="t", version="1.0.0", endpoint=f"127.0.0.1:{number + 10}")
        await ask("SetAlias", name="t", alias=f"a{number}", version="1.0.0")
        await ask("DeprecateTool", name="t", version=f"1.{number + 1}.0", sunset_time=SUNSET)
        await register(name=f"other{number}")


async def test_a_watch_from_a_resolved_revision_misses_nothing_and_repeats_nothing(register, ask, watch):
    await register(name="t", version="1.0.0")

    async def write():
        for number in itertools.count(1):
            await register(name="t", version=f"1.{number}.0")

    writing = asyncio.create_task(write())
    for _ in range(20):
        found = await ask("ResolveTools", selectors=["t"])
        following = int(found.tools[0].version.split(".")[1]) + 1
        change = await watch(found.revision)()
        assert (change.tool.version, change.revision) == (f"1.{following}.0", found.revision + 1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_every_watch_hears_of_every_change(register, watch, revision):
    await register(name="a")
    begun = await revision()
    watches = [watch(begun) for _ in range(20)]
    hearing = [asyncio.create_task(following()) for following in watches]
    await register(name="b")
    assert {((await one).revision, (await one).tool.name) for one in hearing} == {(begun + 1, "b")}


async def test_a_change_is_heard_of_within_a_second(register, watch, revision):
    await register(name="a")
    following, took = watch(await revision()), []
    for name in "bcd":
        start = time.monotonic()
        await register(name=name)
        await following()
        took.append(time.monotonic() - start)
    assert min(took) < 1  # a busy machine may stand still in between


async def test_a_watch_of_changes_that_are_forgotten_is_told_to_begin_anew(register, watch, revision, store):
    await register(name="a")
    begun = await revision()
    for number in range(4):
        await register(name="a", endpoint=f"127.0.0.1:{number + 10}")
    await store.client.xtrim(CHANGES, maxlen=1, approximate=False)
    with pytest.raises(AbortedError, match="list the tools and watch from now on"):
        await watch(begun)()
    assert (await watch(begun + 3)()).revision == begun + 4


async def test_a_watch_after_what_never_was_is_told_to_begin_anew(register, watch, revision):
    await register(name="a")
    with pytest.raises(AbortedError, match="list the tools and watch from now on"):
        await watch(await revision() + 1)()
    with pytest.raises(AbortedError):
        await watch(2**64 - 1)()


async def test_a_watch_of_a_catalog_that_was_emptied_is_told_to_begin_anew(register, watch, revision, store):
    await register(name="a")
    begun = await revision()
    open_ = watch(begun)
    await register(name="b")
    await open_()
    await store.client.flushall()
    await store.client.function_flush()
    await register(name="c")
    with pytest.raises(AbortedError):
        await open_()
    for after in (begun, begun + 1):
        with pytest.raises(AbortedError):
            await watch(after)()
    assert (await watch()()).tool.name == "c"


async def test_a_registry_that_stops_does_not_wait_for_its_watches(register, watch, registry):
    await register(name="a")
    following = watch()
    await following()
    registry.process._server._settings = registry.process._settings.model_copy(update={"drain_s": 30.0})
    start = time.monotonic()
    await registry.process.stop()
    assert time.monotonic() - start < 20
    with pytest.raises((AbortedError, StopAsyncIteration)):
        await following()


async def test_many_watches_cost_the_store_as_much_as_one(register, watch, revision, store):
    await register(name="a")
    begun = await revision()
    watches = [watch(begun) for _ in range(30)]
    await register(name="b")
    await asyncio.gather(*(following() for following in watches))
    before = (await store.client.info("commandstats"))["cmdstat_xrange"]["calls"]
    await register(name="c")
    await asyncio.gather(*(following() for following in watches))
    after = (await store.client.info("commandstats"))["cmdstat_xrange"]["calls"]
    assert after - before == 1
