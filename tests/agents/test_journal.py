"""The journal of one task, on a real store: accepted once, owned by one, written without holes."""

import asyncio
import hashlib

import pytest

from meshwright.agents.journal import RETENTION_MS, Claim, Journal, Limits
from meshwright.agents.reply import Swept
from meshwright.core.errors import (
    FencedError,
    QueueFullError,
    ResultTooLargeError,
    TaskConflictError,
    TaskExpiredError,
    TaskNotFoundError,
)
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

PART = 64 * 1024


def buried(name):
    """How a tombstone names a task: it does not tell which one it was."""
    return hashlib.sha1(name.ref.encode()).hexdigest()


async def sequences(journal, name):
    return [entry.sequence async for entry in journal.replay(name)]


async def expire(store, name):
    """Lets the retention of an ended task be over."""
    await store.client.zadd(partition_key(name.partition(store.partitions), "expiry"), {name.ref: 1})


class TestAccept:
    async def test_the_same_request_attaches_to_the_first_task(self, journal, made):
        assert (await journal.accept(made.task(), claim=False)).is_new
        again = await journal.accept(made.task(), claim=False)
        assert not again.is_new
        assert again.claim is None

    async def test_another_request_under_the_same_id_is_a_conflict(self, journal, made):
        await journal.accept(made.task(), claim=False)
        with pytest.raises(TaskConflictError):
            await journal.accept(made.task(hash="other"), claim=False)

    async def test_two_principals_may_use_the_same_id(self, journal, made):
        for principal in ("ann", "bob"):
            task = made.task(principal=principal, hash=principal)
            assert (await journal.accept(task, claim=False)).is_new
        assert (await journal.record(made.name(principal="ann"))).name.principal == "ann"
        assert await journal.page(made.name(principal="ann"), None, 10) != []
        with pytest.raises(TaskNotFoundError):
            await journal.record(made.name())

    async def test_a_claimed_task_never_enters_the_queue(self, journal, made, store, claimed):
        claim = await claimed(made.task(), made.notice("first"))
        assert await journal.ready("worker") == 0
        assert (await journal.claim(0, "worker")).claim is None
        record = await journal.record(claim.name)
        assert (record.state, record.attempt, record.sequence) == ("RUNNING", 1, 1)
        assert await sequences(journal, claim.name) == [1]

    async def test_a_claim_of_a_known_task_attaches_without_owning_it(self, journal, made, claimed):
        await claimed(made.task())
        again = await journal.accept(made.task(), claim=True, events=[made.notice()])
        assert (again.is_new, again.claim) == (False, None)
        assert await sequences(journal, made.name()) == []

    async def test_a_full_queue_refuses_new_roots_and_says_when_to_come_back(self, store, made):
        journal = Journal(store, "one", limits=Limits(max_ready=1))
        await journal.accept(made.task("t1"), claim=False)
        with pytest.raises(QueueFullError) as refused:
            await journal.accept(made.task("t2"), claim=False)
        assert refused.value.retry_after_s
        assert refused.value.metadata == {"limit": "agent"}
        assert not (await journal.accept(made.task("t1"), claim=False)).is_new
        assert (await journal.accept(made.task("t3", agent_id="other"), claim=False)).is_new

    async def test_a_full_queue_takes_children(self, store, made, claimed):
        journal = Journal(store, "one", limits=Limits(max_ready=1))
        parent = made.task("p")
        await claimed(parent)
        await journal.accept(made.task("t1"), claim=False)
        assert (await journal.accept(made.child(parent), claim=False)).is_new

    async def test_an_id_stays_taken_for_a_day_after_its_task_is_deleted(self, journal, made, store, claimed):
        claim = await claimed(made.task())
        await journal.finish(claim, "COMPLETED", [made.result()])
        await expire(store, claim.name)
        assert await journal.purge(0) == 1
        with pytest.raises(TaskExpiredError):
            await journal.accept(made.task(), claim=False)
        left = await store.client.pttl(partition_key(0, "tomb", buried(claim.name)))
        assert left == pytest.approx(86_400_000, rel=0.01)

    async def test_concurrent_acceptances_make_one_task(self, journal, made):
        accepted = await asyncio.gather(*(journal.accept(made.task(), claim=False) for _ in range(20)))
        assert [one.is_new for one in accepted].count(True) == 1
        assert await journal.ready("worker") == 1


class TestClaim:
    async def test_tasks_are_claimed_in_the_order_of_their_arrival(self, journal, made, store):
        for number in range(3):
            await journal.accept(made.task(f"t{number}"), claim=False)
            await store.client.zadd(partition_key(0, "line", "worker/default"), {made.name(f"t{number}").ref: number})
        found = [(await journal.claim(0, "worker")).claim.name.task_id for _ in range(3)]
        assert found == ["t0", "t1", "t2"]
        assert (await journal.claim(0, "worker")).claim is None

    async def test_a_task_is_claimed_by_one_worker_only(self, journal, made):
        await journal.accept(made.task(), claim=False)
        claims = await asyncio.gather(*(journal.claim(0, "worker") for _ in range(20)))
        assert len([offer for offer in claims if offer.claim]) == 1

    async def test_agents_claim_their_own_tasks_only(self, journal, made):
        await journal.accept(made.task(agent_id="other"), claim=False)
        assert (await journal.claim(0, "worker")).claim is None
        assert (await journal.claim(0, "other")).claim


class TestAppend:
    async def test_the_same_key_again_writes_nothing_and_answers_the_same(self, journal, made, claimed):
        claim = await claimed(made.task())
        first = await journal.append(claim, "k", [made.notice("a"), made.notice("b")])
        await journal.append(claim, "other", [made.notice("c")])
        assert await journal.append(claim, "k", [made.notice("a"), made.notice("b")]) == first
        assert await sequences(journal, claim.name) == [1, 2, 3]

    async def test_concurrent_appends_are_numbered_without_holes(self, journal, made, claimed):
        claim = await claimed(made.task())
        appended = await asyncio.gather(*(journal.append(claim, f"k{n}", [made.notice()] * 3) for n in range(50)))
        assert sorted(one.first for one in appended) == list(range(1, 151, 3))
        assert await sequences(journal, claim.name) == list(range(1, 151))

    async def test_an_owner_of_before_can_no_longer_write(self, journal, made, claimed):
        claim = await claimed(made.task())
        stale = Claim(claim.name, "1-somebody")
        with pytest.raises(FencedError):
            await journal.append(stale, "k", [made.notice()])
        with pytest.raises(FencedError):
            await journal.park(stale, 0, made.notice(), children=1)
        with pytest.raises(FencedError):
            await journal.finish(stale, "COMPLETED", [made.result()])
        assert (await journal.record(claim.name)).sequence == 0

    async def test_a_repeated_append_of_a_fenced_owner_is_refused_too(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.append(claim, "k", [made.notice()])
        await journal.release(claim)
        with pytest.raises(FencedError):
            await journal.append(claim, "k", [made.notice()])

    async def test_large_events_come_back_whole(self, journal, made, claimed, store):
        claim = await claimed(made.task())
        texts = ["x" * (PART - 20), "ä" * PART, "z" * (4 * 2**20 - 100)]
        await journal.append(claim, "k", [made.notice(text) for text in texts])
        found = [entry.event("t1").notice.detail async for entry in journal.replay(claim.name)]
        assert found == texts
        assert await store.client.hlen(partition_key(0, "blob", claim.name.ref)) == 2
        (last,) = await journal.read(claim.name, 2)
        assert last.event("t1").notice.detail == texts[2]

    async def test_an_event_of_more_than_4_mib_is_refused(self, journal, made, claimed):
        claim = await claimed(made.task())
        with pytest.raises(ResultTooLargeError):
            await journal.append(claim, "k", [made.notice(), made.notice("x" * 4 * 2**20)])
        assert await sequences(journal, claim.name) == []

    async def test_large_events_of_more_than_32_mib_together_are_refused(self, journal, made, claimed):
        claim = await claimed(made.task())
        for number in range(8):
            await journal.append(claim, f"k{number}", [made.notice("x" * (4 * 2**20 - 100))])
        with pytest.raises(ResultTooLargeError):
            await journal.append(claim, "k", [made.notice("x" * PART)])
        await journal.append(claim, "small", [made.notice()])

    async def test_more_than_10000_events_are_refused_and_the_end_is_still_written(self, journal, made, claimed):
        claim = await claimed(made.task())
        for number in range(10):
            await journal.append(claim, f"k{number}", [made.notice()] * 1000)
        with pytest.raises(ResultTooLargeError):
            await journal.append(claim, "one more", [made.notice()])
        assert (await journal.append(claim, "k0", [made.notice()] * 1000)).first == 1
        ended = await journal.finish(claim, "FAILED", [made.result()])
        assert ended.first == 10_001
        assert await sequences(journal, claim.name) == list(range(1, 10_002))

    async def test_counters_add_up(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.append(claim, "a", [made.said(tokens=(100, 20)), made.outcome()])
        await journal.append(claim, "b", [made.said(tokens=(1, 2), step=2), made.outcome(), made.outcome()])
        await journal.append(claim, "b", [made.said(tokens=(1, 2), step=2), made.outcome(), made.outcome()])
        response = await journal.response(claim.name)
        assert (response.steps_used, response.tokens_used, response.tool_calls) == (2, 123, 3)
        assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.model_calls) == (101, 22, 2)

    async def test_progress_alone_clears_the_count_of_barren_claims(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.append(claim, "a", [made.notice()], is_progress=False)
        assert (await journal.record(claim.name)).barren == 1
        await journal.append(claim, "b", [made.notice()])
        assert (await journal.record(claim.name)).barren == 0


class TestFinish:
    async def test_the_first_end_wins(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.finish(claim, "COMPLETED", [made.said(), made.result("first")])
        with pytest.raises(FencedError):
            await journal.finish(claim, "FAILED", [made.result("second")])
        assert not await journal.finish_idle(claim.name, "CANCELLED", made.result("third"))
        response = await journal.response(claim.name)
        assert (response.output, response.last_sequence) == ("first", 2)

    async def test_a_task_is_ended_and_leaves_every_list(self, journal, made, claimed, store):
        claim = await claimed(made.task(request=TaskRequest(prompt="Go.", session_id="s1")))
        await journal.finish(claim, "COMPLETED", [made.result()])
        record = await journal.record(claim.name)
        assert record.is_terminal
        assert record.expire == record.ended + RETENTION_MS
        for noun in ("leases", "deadlines"):
            assert await store.client.zcard(partition_key(0, noun)) == 0
        assert [name for _, name in await journal.outbox(0)] == [claim.name]

    async def test_only_a_task_that_nobody_runs_is_ended_as_idle(self, journal, made):
        await journal.accept(made.task(), claim=False)
        claim = (await journal.claim(0, "worker")).claim
        assert not await journal.finish_idle(claim.name, "CANCELLED", made.result())
        await journal.release(claim)
        assert await journal.finish_idle(claim.name, "CANCELLED", made.result())
        assert await journal.ready("worker") == 0
        assert (await journal.claim(0, "worker")).claim is None

    async def test_what_a_task_was_is_read_from_record_and_result(self, journal, made, claimed):
        claim = await claimed(made.task())
        end = made.result("Done.")
        end.result.create_time.FromMilliseconds((await journal.record(claim.name)).created)
        await journal.finish(claim, "COMPLETED", [end])
        response = await journal.response(claim.name)
        assert response.task_id == "t1"
        assert response.output == "Done."
        (event,) = [entry.event("t1") async for entry in journal.replay(claim.name)]
        assert event.result.last_sequence == 1
        assert event.result.end_time == response.end_time
        assert event.result.duration_ms == response.duration_ms

    async def test_tasks_that_are_gone_are_left_out_when_many_are_read(self, journal, made):
        await journal.accept(made.task("t1"), claim=False)
        found = await journal.responses([made.name("gone"), made.name("t1")])
        assert [response.task_id for response in found] == ["t1"]


class TestRelease:
    async def test_a_released_task_goes_to_the_front_and_counts_no_attempt(self, journal, made, claimed):
        claim = await claimed(made.task("released"))
        await journal.accept(made.task("waiting"), claim=False)
        await journal.release(claim)
        again = (await journal.claim(0, "worker")).claim
        record = await journal.record(again.name)
        assert (record.name.task_id, record.attempt, record.barren) == ("released", 1, 1)

    async def test_a_task_that_is_not_owned_is_not_released(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.release(Claim(claim.name, "1-somebody"))
        assert (await journal.record(claim.name)).state == "RUNNING"

    async def test_a_cancelled_task_that_is_released_is_ended_by_the_next_sweep(self, journal, made, claimed):
        claim = await claimed(made.task())
        assert await journal.cancel(claim.name, "enough") == []
        await journal.release(claim)
        assert await journal.sweep(0) == Swept(0, [claim.name], [], [])


class TestPurge:
    async def test_a_purged_task_leaves_nothing_but_its_tombstone(self, journal, made, claimed, store, keys):
        parent = made.task()
        claim = await claimed(parent)
        child = await claimed(made.child(parent))
        await journal.append(child, "k", [made.notice("x" * 2 * PART)])
        await journal.finish(child, "COMPLETED", [made.result()])
        await journal.finish(claim, "COMPLETED", [made.result()])
        for name in (claim.name, child.name):
            await expire(store, name)
        assert await journal.purge(0) == 2
        tombs = {partition_key(0, "tomb", buried(name)) for name in (claim.name, child.name)}
        assert {key for key in await keys() if ":audit" not in key} == tombs

    async def test_a_task_that_has_not_expired_stays(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.finish(claim, "COMPLETED", [made.result()])
        assert await journal.purge(0) == 0
        assert (await journal.response(claim.name)).output == "Done."
