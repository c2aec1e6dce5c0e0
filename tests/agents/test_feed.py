"""Feeds: a watcher sees every event once and in order, whoever writes it and whatever breaks in between."""

import asyncio
import contextlib

import pytest

from meshwright.agents.feed import QUEUE, Feeds, Follower
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.reader import PAGE
from meshwright.agents.task import Entry
from meshwright.core.codec import Codec
from meshwright.core.errors import TaskNotFoundError
from meshwright.core.settings import Settings
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent, TextDelta

NEVER = 600.0
"""A heartbeat that comes to nobody's rescue."""


@contextlib.asynccontextmanager
async def opened(url, heartbeat_s=NEVER):
    """A process of its own, as far as the store can tell: journal and feeds on their own connections."""
    store = Store(url, LIBRARY, codec=Codec.of(Settings.load().content_keys_file))
    await store.open()
    feeds = Feeds(Journal(store, "watcher"), heartbeat_s=heartbeat_s)
    await feeds.open({"worker": lambda _: None})
    yield feeds
    await feeds.close()
    await store.close()


@pytest.fixture
async def feeds(store):
    async with opened(store.url) as feeds:
        yield feeds


async def collect(feeds, name, *, after=0):
    return [event async for event in feeds.follow(name, after)]


async def test_replay_and_live_events_follow_each_other_without_gap_or_repetition(journal, made, claimed, feeds):
    parent = made.task("root")
    claim = await claimed(parent)
    children = [await claimed(made.child(parent, f"c{number}")) for number in range(3)]
    await journal.append(claim, "before", [made.notice()] * 30)
    watchers = [asyncio.create_task(collect(feeds, claim.name, after=after)) for after in (0, 0, 7, 30, 31)]

    async def write(writer, prefix):
        for number in range(60):
            await journal.append(writer, f"{prefix}{number}", [made.notice()] * (1 + number % 3))

    await asyncio.gather(*(write(writer, "k") for writer in (claim, *children)), write(claim, "l"))
    last = (await journal.finish(claim, "COMPLETED", [made.result()])).first
    for watcher, after in zip(watchers, (0, 0, 7, 30, 31), strict=True):
        events = await watcher
        assert [event.sequence for event in events] == list(range(after + 1, last + 1))
        assert events[-1].HasField("result")


async def test_an_ended_task_is_replayed_and_the_stream_ends(journal, made, claimed, feeds, numbers):
    claim = await claimed(made.task(), made.notice(), made.notice())
    await journal.finish(claim, "COMPLETED", [made.result()])
    assert numbers(await collect(feeds, claim.name)) == [1, 2, 3]
    assert numbers(await collect(feeds, claim.name, after=2)) == [3]
    assert await collect(feeds, claim.name, after=3) == []
    assert await collect(feeds, claim.name, after=99) == []


@pytest.mark.parametrize("is_joined", [True, False])
async def test_a_watcher_that_asks_for_what_comes_after_the_end_is_let_go_at_the_end(
    journal, made, claimed, feeds, is_joined
):
    claim = await claimed(made.task("t1"))
    joined = feeds.join(claim.name) if is_joined else None
    await feeds.attend(claim.name)
    watcher = asyncio.create_task(anext(feeds.follow(claim.name, 9_999, joined=joined), None))
    await asyncio.sleep(0)
    await journal.finish(claim, "COMPLETED", [made.result()])
    async with asyncio.timeout(10):
        assert await watcher is None


async def test_a_purged_task_is_not_found(journal, made, claimed, feeds, store):
    claim = await claimed(made.task())
    await journal.finish(claim, "COMPLETED", [made.result()])
    await store.client.zadd(partition_key(0, "expiry"), {claim.name.ref: 1})
    await journal.purge(0)
    with pytest.raises(TaskNotFoundError):
        await collect(feeds, claim.name)


async def test_a_silent_task_sends_heartbeats(made, claimed, store):
    claim = await claimed(made.task(), made.notice())
    async with opened(store.url, heartbeat_s=0.01) as feeds:
        events = feeds.follow(claim.name, 0)
        assert (await anext(events)).sequence == 1
        assert [await anext(events) for _ in range(3)] == [None] * 3
        await events.aclose()


async def test_a_heartbeat_is_due_after_silence_alone(made, claimed, store, journal):
    claim = await claimed(made.task(), made.notice())
    async with opened(store.url, heartbeat_s=0.4) as feeds:
        events = feeds.follow(claim.name, 0)
        for number in range(12):
            assert (await anext(events)).sequence == number + 1
            await asyncio.sleep(0.05)
            await journal.append(claim, f"k{number}", [made.notice()])
        await events.aclose()


async def test_who_does_not_wait_for_heartbeats_is_sent_none(made, claimed, store):
    claim = await claimed(made.task(), made.notice())
    async with opened(store.url, heartbeat_s=0.01) as feeds, feeds.joined(claim.name) as follower:
        await asyncio.sleep(0.05)
        assert len(follower) == 0


async def test_a_heartbeat_reads_what_no_message_told_of(journal, made, claimed, store, until):
    claim = await claimed(made.task(), made.notice())
    async with opened(store.url, heartbeat_s=0.02) as feeds:
        events = feeds.follow(claim.name, 0)
        await until(events, lambda event: event is None)
        (untold,) = await journal.sealing.events(claim.name, [made.notice("untold")])
        await store.client.xadd(partition_key(0, "log", claim.name.ref), {"t": 1, "e": untold}, id="0-2")
        assert (await until(events, lambda event: event)).notice.detail == "untold"
        await events.aclose()


async def test_more_than_a_page_is_read_to_its_end(journal, made, claimed, feeds, numbers):
    claim = await claimed(made.task())
    await journal.append(claim, "many", [made.notice()] * (2 * PAGE))
    events = feeds.follow(claim.name, 0)
    assert [(await anext(events)).sequence for _ in range(2 * PAGE)] == list(range(1, 2 * PAGE + 1))
    await journal.finish(claim, "COMPLETED", [made.result()])
    assert (await anext(events)).sequence == 2 * PAGE + 1
    with pytest.raises(StopAsyncIteration):
        await anext(events)


class TestGap:
    """A part of a journal is gone, for example since somebody trimmed it."""

    async def test_a_frame_stands_for_what_is_gone_and_the_stream_goes_on(self, journal, made, claimed, feeds, store):
        claim = await claimed(made.task(), *(made.notice(f"{number}") for number in range(6)))
        await journal.finish(claim, "COMPLETED", [made.result("Done.")])
        log = partition_key(0, "log", claim.name.ref)
        await store.client.xtrim(log, minid="0-4", approximate=False)
        events = await collect(feeds, claim.name)
        gap, *rest = events
        assert (gap.sequence, gap.gap.from_sequence, gap.gap.to_sequence) == (0, 1, 3)
        assert (gap.gap.snapshot.task_id, gap.gap.snapshot.output, gap.gap.snapshot.last_sequence) == ("t1", "Done.", 7)
        assert [event.sequence for event in rest] == [4, 5, 6, 7]

    async def test_who_has_seen_what_is_gone_sees_no_gap(self, journal, made, claimed, feeds, store):
        claim = await claimed(made.task(), *(made.notice(f"{number}") for number in range(6)))
        await journal.finish(claim, "COMPLETED", [made.result("Done.")])
        await store.client.xtrim(partition_key(0, "log", claim.name.ref), minid="0-4", approximate=False)
        assert [event.sequence for event in await collect(feeds, claim.name, after=4)] == [5, 6, 7]
        assert [event.sequence for event in await collect(feeds, claim.name, after=3)] == [4, 5, 6, 7]


class TestOverflow:
    async def test_a_follower_that_is_too_slow_is_told_to_read_the_journal(self, made):
        follower = Follower()
        for _ in range(QUEUE + 1):
            follower.push(made.notice())
        assert len(follower) == 1
        assert follower.take() is None

    async def test_a_slow_watcher_still_sees_everything(self, journal, made, claimed, feeds, store, becomes, heard):
        claim = await claimed(made.task(), made.notice())
        events = feeds.follow(claim.name, 0)
        assert (await anext(events)).sequence == 1
        await heard(claim.name)
        (follower,) = feeds._audiences[claim.name.ref].followers
        for number in range(3 * QUEUE):
            await journal.append(claim, f"k{number}", [made.notice()])
        await journal.finish(claim, "COMPLETED", [made.result()])
        await becomes(lambda: len(follower) < QUEUE)
        rest = [event.sequence async for event in events]
        assert rest == list(range(2, 3 * QUEUE + 3))


class TestReconnect:
    async def test_what_passed_while_the_connection_was_gone_is_read(
        self, journal, made, claimed, feeds, store, becomes, heard
    ):
        claim = await claimed(made.task(), made.notice())
        events = feeds.follow(claim.name, 0)
        assert (await anext(events)).sequence == 1
        await heard(claim.name)
        for round_ in range(5):
            async with store.client.pipeline(transaction=True) as pipeline:  # nobody subscribes in between
                pipeline.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await pipeline.execute()
            await journal.append(claim, f"k{round_}", [made.notice()])
            async with asyncio.timeout(5):
                assert (await anext(events)).sequence == 2 + round_
        await events.aclose()

    async def test_many_watchers_survive_kills_of_all_connections(self, journal, made, claimed, feeds, store):
        claims = [await claimed(made.task(f"t{number}")) for number in range(10)]
        watchers = [asyncio.create_task(collect(feeds, claim.name)) for claim in claims]
        for number in range(30):
            await asyncio.gather(*(journal.append(claim, f"k{number}", [made.notice()]) for claim in claims))
            if number % 10 == 5:
                await store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            if number % 10 == 8:
                await store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for claim in claims:
            await journal.finish(claim, "COMPLETED", [made.result()])
        async with asyncio.timeout(10):
            for watcher in watchers:
                assert [event.sequence for event in await watcher] == list(range(1, 32))

    async def test_a_store_that_was_killed_and_came_back_is_followed_on(self, own_store, made, becomes, heard):
        journal = Journal(own_store.store, "one")
        claim = (await journal.accept(made.task(), claim=True, events=[made.notice()])).claim
        async with opened(own_store.url) as feeds:
            woken = []
            feeds._listeners[partition_key(0, "wake", "worker")] = woken.append
            events = feeds.follow(claim.name, 0)
            assert (await anext(events)).sequence == 1
            await heard(claim.name, own_store.store)
            own_store.kill()
            joined = asyncio.create_task(anext(feeds.follow(claim.name.sibling("t2"), 0)))
            await own_store.start()
            await journal.append(claim, "k", [made.notice()])
            async with asyncio.timeout(10):
                assert (await anext(events)).sequence == 2
            await heard(claim.name, own_store.store)
            await journal.accept(made.task("t3"), claim=False)
            await becomes(lambda: made.name("t3").ref in woken)
            await events.aclose()
            joined.cancel()


class TestLocal:
    async def test_what_this_process_writes_is_shown_without_the_store(self, made, claimed, feeds, store):
        claim = await claimed(made.task(), made.notice())
        async with feeds.joined(claim.name) as follower:
            events = feeds.follow(claim.name, 0, joined=follower)
            for number, detail in enumerate(("first", "mine"), 1):
                feeds.show(claim.name, [Entry(number, 5, "", made.notice(detail).SerializeToString()).event("t1")])
            assert (await anext(events)).sequence == 1
            event = await anext(events)
            assert (event.sequence, event.task_id, event.notice.detail) == (2, "t1", "mine")
            assert await store.client.execute_command("PUBSUB", "SHARDCHANNELS", "*tail*") == []
            await events.aclose()
        assert feeds._audiences == {}

    async def test_a_task_that_goes_elsewhere_is_followed_there(self, journal, made, claimed, feeds):
        claim = await claimed(made.task(), made.notice())
        async with feeds.joined(claim.name) as follower:
            events = feeds.follow(claim.name, 0, joined=follower)
            await feeds.give_up(claim.name)
            assert (await anext(events)).sequence == 1
            await journal.append(claim, "k", [made.notice()])
            assert (await anext(events)).sequence == 2
            await events.aclose()

    async def test_events_of_children_are_heard_as_well_once_attended_to(self, journal, made, claimed, feeds):
        parent = made.task()
        claim = await claimed(parent, made.notice())
        child = await claimed(made.child(parent))
        async with feeds.joined(claim.name) as follower:
            events = feeds.follow(claim.name, 1, joined=follower)
            await feeds.attend(claim.name)
            await journal.append(child, "k", [made.notice("below")])
            assert (await anext(events)).child.event.notice.detail == "below"
            await events.aclose()

    async def test_nobody_is_subscribed_to_a_task_that_nobody_watches(
        self, made, claimed, feeds, store, becomes, heard
    ):
        claim = await claimed(made.task(), made.notice())
        await feeds.give_up(claim.name)
        await feeds.attend(claim.name)
        events = feeds.follow(claim.name, 0)
        await anext(events)
        await heard(claim.name)
        await events.aclose()

        async def is_quiet():
            return await store.client.execute_command("PUBSUB", "SHARDCHANNELS", "*tail*") == []

        await becomes(is_quiet)
        again = feeds.follow(claim.name, 0)
        await anext(again)
        await heard(claim.name)
        await again.aclose()


class TestPassing:
    async def test_text_passes_to_watchers_of_task_and_ancestors_and_is_kept_nowhere(
        self, journal, made, claimed, feeds, store, becomes, heard
    ):
        root = made.task("root")
        child = made.child(root)
        claims = [await claimed(task, made.notice()) for task in (root, child)]
        streams = [feeds.follow(claim.name, 0) for claim in claims]
        for stream, claim in zip(streams, claims, strict=True):
            await anext(stream)
            await heard(claim.name)
        await anext(streams[0])  # the child's first event
        await journal.pass_on(child.name, StepEvent(delta=TextDelta(text="Hel", offset=0)))
        above, own = await anext(streams[0]), await anext(streams[1])
        assert (own.sequence, own.task_id, own.delta.text) == (0, child.name.task_id, "Hel")
        assert (above.sequence, above.task_id, above.child.child_task_id) == (0, "root", child.name.task_id)
        assert above.child.event == own
        assert (await journal.record(root.name)).sequence == 2
        for stream in streams:
            await stream.aclose()

    async def test_own_text_is_shown_once_whether_the_store_tells_it_or_not(self, made, claimed, feeds):
        claim = await claimed(made.task(), made.notice())
        frame = StepEvent(delta=TextDelta(text="Hel"))
        async with feeds.joined(claim.name) as follower:
            feeds.show_passing(claim.name, frame)
            assert (await follower.next(1)).delta.text == "Hel"
            await feeds.attend(claim.name)
            while len(follower):
                follower.take()
            feeds.show_passing(claim.name, frame)
            assert len(follower) == 0
