"""Queues: who is next, who runs alone, who is given up, and which version may."""

import pytest

from meshwright.agents.journal import Journal, Limits
from meshwright.core.errors import MeshError, QueueFullError
from meshwright.core.store import partition_key


@pytest.fixture
def submit(made, journal):
    """Accepts a task of a tenant, without claiming it."""

    async def submitted(task_id, tenant="default", by=journal, **facts):
        task = made.task(task_id, **facts)
        name = made.name(task_id, tenant=tenant)
        task = type(task)(**{slot: getattr(task, slot) for slot in task.__slots__} | {"name": name})
        await by.accept(task, claim=False)
        return name

    return submitted


async def order(journal, many, **options):
    found = []
    for _ in range(many):
        claim = (await journal.claim(0, "worker", **options)).claim
        if claim is None:
            break
        found.append(claim.name.task_id)
    return found


class TestFairness:
    async def test_tenants_take_turns_however_many_tasks_one_of_them_has(self, journal, submit):
        for number in range(20):
            await submit(f"a{number}", "acme")
        for number in range(3):
            await submit(f"b{number}", "beta")
        assert await order(journal, 7) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3"]

    async def test_a_tenant_that_comes_late_owes_and_is_owed_nothing(self, journal, submit, made):
        for number in range(10):
            await submit(f"a{number}", "acme")
        claims = [(await journal.claim(0, "worker")).claim for _ in range(6)]
        for claim in claims:
            await journal.finish(claim, "COMPLETED", [made.result()])
        for number in range(4):
            await submit(f"b{number}", "beta")
        found = await order(journal, 6)
        assert sorted(found[:2]) == ["a6", "b0"]
        assert sorted(found[2:4]) == ["a7", "b1"]

    async def test_a_tenant_of_twice_the_weight_gets_twice_as_much(self, store, submit):
        journal = Journal(store, "one", limits=Limits(weights={"beta": 2}))
        for number in range(9):
            await submit(f"a{number}", "acme")
            await submit(f"b{number}", "beta")
        found = await order(journal, 9)
        assert len([task_id for task_id in found if task_id.startswith("b")]) == 6

    async def test_running_work_counts(self, journal, submit, made):
        for number in range(4):
            await submit(f"a{number}", "acme")
            await submit(f"b{number}", "beta")
        first = (await journal.claim(0, "worker")).claim
        second = (await journal.claim(0, "worker")).claim
        assert {first.name.tenant, second.name.tenant} == {"acme", "beta"}
        await journal.finish(first, "COMPLETED", [made.result()])
        assert (await journal.claim(0, "worker")).claim.name.tenant == first.name.tenant

    async def test_a_tenant_at_its_cap_waits_and_others_do_not(self, store, submit, made):
        journal = Journal(store, "one", limits=Limits(tenant_concurrency=2))
        for number in range(4):
            await submit(f"a{number}", "acme")
        await submit("b0", "beta")
        claims = [(await journal.claim(0, "worker")).claim for _ in range(3)]
        assert sorted(claim.name.task_id for claim in claims) == ["a0", "a1", "b0"]
        assert (await journal.claim(0, "worker")).claim is None
        await journal.finish(claims[0], "COMPLETED", [made.result()])
        assert await order(journal, 5) == ["a2"]

    async def test_names_of_tenants_may_hold_anything(self, store, submit):
        journal = Journal(store, "one", limits=Limits(weights={"a b/c=d": 5}))
        for number in range(6):
            await submit(f"a{number}", "a b/c=d")
            await submit(f"b{number}", "beta")
        assert len([task_id for task_id in await order(journal, 6) if task_id.startswith("a")]) == 5

    async def test_priorities_order_the_tasks_of_a_tenant(self, journal, submit):
        for rank in ("LOW", "NORMAL", "HIGH"):
            await submit(rank.lower(), rank=rank)
        assert await order(journal, 3) == ["high", "normal", "low"]

    async def test_one_tenant_alone_is_refused_what_exceeds_its_share_of_the_queue(self, store, submit):
        journal = Journal(store, "one", limits=Limits(tenant_max_ready=1))
        await submit("a0", "acme", by=journal)
        with pytest.raises(QueueFullError) as refused:
            await submit("a1", "acme", by=journal)
        assert refused.value.retry_after_s == 5
        assert refused.value.metadata == {"limit": "tenant"}
        await submit("b0", "beta", by=journal)

    async def test_nobody_overtakes_those_who_wait_by_asking_for_an_answer_at_once(self, journal, submit, made):
        await submit("t1")
        accepted = await journal.accept(made.task("t2"), claim=True, events=[made.notice()])
        assert (accepted.is_new, accepted.claim) == (True, None)
        assert await order(journal, 3) == ["t1", "t2"]


class TestPoison:
    @pytest.fixture
    def lose(self, journal, store):
        """Lets the worker of a task be lost."""

        async def lost(claim):
            await store.client.zadd(partition_key(0, "leases"), {claim.name.ref: 1})
            return await journal.sweep(0)

        return lost

    async def suspect(self, journal, submit, lose):
        await submit("bad")
        for _ in range(2):
            await lose((await journal.claim(0, "worker")).claim)

    async def test_a_task_whose_workers_were_lost_before_they_got_anywhere_waits_for_an_idle_worker(
        self, journal, submit, lose
    ):
        await self.suspect(journal, submit, lose)
        await submit("good")
        offer = await journal.claim(0, "worker", is_idle=False)
        assert (offer.claim, offer.should_isolate) == (None, True)
        offer = await journal.claim(0, "worker", is_idle=False)
        assert offer.claim.name.task_id == "good", "one worker alone makes room for it"
        claim = (await journal.claim(0, "worker", is_idle=True)).claim
        assert (claim.name.task_id, claim.is_suspect) == ("bad", True)

    async def test_one_worker_that_is_lost_makes_no_suspect(self, journal, submit, lose):
        await submit("t1")
        await lose((await journal.claim(0, "worker")).claim)
        assert not (await journal.claim(0, "worker", is_idle=False)).claim.is_suspect

    async def test_a_task_that_made_progress_is_no_suspect(self, journal, submit, lose, made):
        await submit("t1")
        claim = (await journal.claim(0, "worker")).claim
        await journal.append(claim, "k", [made.said()])
        await lose(claim)
        claim = (await journal.claim(0, "worker", is_idle=False)).claim
        assert (claim.name.task_id, claim.is_suspect) == ("t1", False)

    async def test_after_five_claims_without_progress_it_is_given_up(self, journal, submit, lose, made):
        name = await submit("bad")
        for attempt in range(5):
            claim = (await journal.claim(0, "worker")).claim
            await journal.append(claim, f"k{attempt}", [made.notice()], is_progress=False)
            swept = await lose(claim)
        assert swept.idle == [name]
        assert (await journal.claim(0, "worker")).claim is None
        assert (await journal.record(name)).is_poison
        assert await journal.finish_idle(name, "FAILED", made.result("given up"))
        assert [task_id for _, task_id in await journal.page(name, None, 10, shelf="dead")] == ["bad"]
        await journal.drop(name, "ann")
        assert await journal.page(name, None, 10, shelf="dead") == []

    async def test_a_draining_worker_hands_back_uncounted(self, journal, submit, lose):
        name = await submit("t1")
        for _ in range(7):
            await journal.release((await journal.claim(0, "worker")).claim)
        assert (await journal.record(name)).barren == 0


class TestVersions:
    async def test_a_task_stays_with_the_version_that_began_it(self, journal, submit, made):
        await submit("t1")
        claim = (await journal.claim(0, "worker", version="1.0.0", is_pinning=True)).claim
        await journal.release(claim)
        assert (await journal.claim(0, "worker", version="2.0.0")).claim is None
        assert (await journal.claim(0, "worker", version="1.0.0", is_pinning=True)).claim.name.task_id == "t1"

    async def test_any_version_goes_on_where_none_is_asked_for(self, journal, submit):
        await submit("t1")
        await journal.release((await journal.claim(0, "worker", version="1.0.0")).claim)
        assert (await journal.claim(0, "worker", version="2.0.0")).claim.name.task_id == "t1"

    async def test_a_task_whose_version_does_not_come_is_told_and_can_be_unpinned(self, store, submit, made):
        journal = Journal(store, "one", lease_s=0.001)
        name = await submit("t1")
        await journal.release((await journal.claim(0, "worker", version="1.0.0", is_pinning=True)).claim)
        await store.client.zadd(partition_key(0, "pinned"), {name.ref: 1})
        assert (await journal.sweep(0)).stranded == [name]
        event = made.asks("in-1")
        assert await journal.strand(name, event)
        assert not await journal.strand(name, event)
        assert [pending.input_id for pending in await journal.inputs(name)] == ["in-1"]
        await journal.resolve(name, "in-1", "", made.notice("go on"), is_unpinning=True)
        assert (await journal.claim(0, "worker", version="2.0.0")).claim.name == name

    async def test_what_a_newer_version_wrote_is_left_to_it(self, journal, submit, store, made):
        name = await submit("t1")
        await store.client.hset(partition_key(0, "task", name.ref), "v", 2)
        assert (await journal.claim(0, "worker")).claim is None
        assert (await journal.record(name)).state == "PENDING"
        with pytest.raises(MeshError, match="newer version"):
            await journal.finish_idle(name, "FAILED", made.result())


async def test_counts_of_running_work_are_right_after_every_way_to_end_it(journal, submit, store, made):
    running = partition_key(0, "running", "worker")
    for number in range(6):
        await submit(f"t{number}")
    claims = [(await journal.claim(0, "worker")).claim for _ in range(6)]
    assert await store.client.hget(running, "default") == b"6"
    await journal.finish(claims[0], "COMPLETED", [made.result()])
    await journal.park(claims[1], 0, made.notice(), children=1)
    await journal.release(claims[2])
    await store.client.zadd(partition_key(0, "leases"), {claims[3].name.ref: 1})
    await journal.sweep(0)
    assert await store.client.hget(running, "default") == b"2"
    for claim in claims[4:]:
        await journal.finish(claim, "FAILED", [made.result()])
    assert not await store.client.exists(running)
