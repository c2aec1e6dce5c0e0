"""Leases: whoever is silent loses its tasks, a store that was away takes nothing from anybody."""

import pytest

from meshwright.agents.journal import Journal
from meshwright.agents.reply import Swept
from meshwright.core.errors import FencedError
from meshwright.core.store import partition_key


async def lapse(store, name):
    """Lets a lease be over."""
    await store.client.zadd(partition_key(name.partition(store.partitions), "leases"), {name.ref: 1})


async def test_a_task_whose_lease_is_over_is_queued_again_as_a_further_attempt(journal, made, claimed, store):
    claim = await claimed(made.task())
    assert await journal.sweep(0) == Swept(0, [], [], [])
    await lapse(store, claim.name)
    assert await journal.sweep(0) == Swept(1, [], [], [])
    assert await journal.sweep(0) == Swept(0, [], [], [])
    again = (await journal.claim(0, "worker")).claim
    record = await journal.record(again.name)
    assert (record.state, record.attempt, record.barren) == ("RUNNING", 2, 2)
    with pytest.raises(FencedError):
        await journal.append(claim, "k", [made.notice()])
    await journal.append(again, "k", [made.notice()])


async def test_a_beat_keeps_the_lease_and_tells_what_is_lost(journal, made, claimed, store):
    kept, lost = await claimed(made.task("kept")), await claimed(made.task("lost"))
    await journal.release(lost)
    await lapse(store, kept.name)
    beaten = await journal.beat([kept, lost])
    assert (beaten.lost, beaten.cancelled) == ({lost.name.ref}, frozenset())
    assert await journal.sweep(0) == Swept(0, [], [], [])
    assert await store.client.zscore(partition_key(0, "leases"), lost.name.ref) is None


async def test_a_cancelled_task_of_a_lost_worker_is_ended_and_not_run_again(journal, made, claimed, store):
    claim = await claimed(made.task())
    await journal.cancel(claim.name, "enough")
    await lapse(store, claim.name)
    assert await journal.sweep(0) == Swept(1, [claim.name], [], [])
    assert await journal.finish_idle(claim.name, "CANCELLED", made.result())
    assert (await journal.claim(0, "worker")).claim is None


async def test_tasks_that_nobody_runs_end_when_their_time_is_over(journal, made, claimed):
    running = await claimed(made.task("running", timeout_ms=0))
    parked = await claimed(made.task("parked", timeout_ms=0))
    await journal.accept(made.task("waiting", timeout_ms=0), claim=False)
    await journal.park(parked, 0, made.notice(), children=1)
    swept = await journal.sweep(0)
    taken, idle = swept.taken, swept.idle
    assert (taken, set(idle)) == (0, {made.name("waiting"), parked.name})
    assert (await journal.record(running.name)).state == "RUNNING"


async def test_after_a_restart_of_the_store_nobody_is_taken_over_for_one_lease(own_store, made):
    journal = Journal(own_store.store, "one", lease_s=0.5)
    claims = []
    for number in range(2):
        accepted = await journal.accept(made.task(f"t{number}"), claim=True)
        claims.append(accepted.claim)
    await journal.append(claims[0], "k", [made.notice()])
    assert await journal.sweep(0) == Swept(0, [], [], [])
    own_store.kill()
    await own_store.start()

    for claim in claims:
        await lapse(own_store.store, claim.name)
    assert await journal.sweep(0) == Swept(0, [], [], [])  # the first one after the restart begins the grace
    assert await journal.sweep(0) == Swept(0, [], [], [])
    assert (await journal.beat(claims[:1])).lost == frozenset()
    await journal.append(claims[0], "k2", [made.notice()])
    assert (await journal.record(claims[0].name)).sequence == 2

    boot = partition_key(0, "boot")
    since = int(await own_store.store.client.hget(boot, "since"))
    await own_store.store.client.hset(boot, "since", since - 600)
    assert await journal.sweep(0) == Swept(1, [], [], [])
    states = [(await journal.record(claim.name)).state for claim in claims]
    assert states == ["RUNNING", "PENDING"]


async def test_a_store_that_lost_its_functions_gets_them_again(own_store, made):
    journal = Journal(own_store.store, "one")
    await own_store.store.client.function_flush()
    assert (await journal.accept(made.task(), claim=False)).is_new
