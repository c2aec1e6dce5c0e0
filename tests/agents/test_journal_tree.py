"""A tree of tasks in one partition: events and costs go up to every ancestor, cancellation goes down."""

import asyncio

import pytest

from meshwright.agents.state import RunState
from meshwright.agents.task import leaf
from meshwright.core.errors import FencedError, ResultTooLargeError, TaskCancelledError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_RUNNING


class Tree:
    """A root, its child and its grandchild, all of them claimed."""

    def __init__(self, journal, root, child, grandchild):
        self.journal = journal
        self.root, self.child, self.grandchild = root, child, grandchild

    async def events(self, claim):
        name = claim.name
        return [entry.event(name.task_id) async for entry in self.journal.replay(name)]


@pytest.fixture
async def tree(journal, made, claimed):
    root = made.task("root")
    child = made.child(root)
    grandchild = made.child(child, "c2")
    return Tree(journal, *[await claimed(task) for task in (root, child, grandchild)])


async def state_of(journal, claim):
    return (await journal.record(claim.name)).state


class TestMirror:
    async def test_events_reach_every_ancestor_nested_and_numbered_anew(self, journal, made, tree):
        await journal.append(tree.root, "k", [made.notice("of the root")])
        await journal.append(tree.child, "k", [made.notice("of the child")])
        await journal.append(tree.grandchild, "k", [made.notice("one"), made.notice("two")])

        of_root, of_child = await tree.events(tree.root), await tree.events(tree.child)
        assert [event.sequence for event in of_root] == [1, 2, 3, 4]
        assert [event.sequence for event in of_child] == [1, 2, 3]
        assert [leaf(event).notice.detail for event in of_root] == ["of the root", "of the child", "one", "two"]

        outer = of_root[3]
        assert outer.task_id == "root"
        assert outer.child.child_task_id == tree.child.name.task_id
        middle = outer.child.event
        assert (middle.task_id, middle.sequence) == (tree.child.name.task_id, 3)
        assert middle == of_child[2]
        inner = middle.child.event
        assert (inner.task_id, inner.sequence) == (tree.grandchild.name.task_id, 2)
        assert inner == (await tree.events(tree.grandchild))[1]

    async def test_concurrent_writers_leave_no_holes_anywhere(self, journal, made, tree):
        claims = [tree.root, tree.child, tree.grandchild]
        await asyncio.gather(*(journal.append(claims[n % 3], f"k{n}", [made.notice()] * 2) for n in range(60)))
        for claim, many in zip(claims, (120, 80, 40), strict=True):
            assert [event.sequence for event in await tree.events(claim)] == list(range(1, many + 1))

    async def test_a_repeated_append_is_not_mirrored_again(self, journal, made, tree):
        for _ in range(2):
            await journal.append(tree.grandchild, "k", [made.notice()])
        assert len(await tree.events(tree.root)) == 1

    async def test_usage_adds_up_and_steps_stay_own(self, journal, made, tree):
        await journal.append(tree.root, "k", [made.said(tokens=(10, 1))])
        await journal.append(tree.child, "k", [made.said(tokens=(100, 2)), made.outcome()])
        await journal.append(tree.grandchild, "k", [made.said(tokens=(1000, 3)), made.said(tokens=(0, 4), step=2)])
        for claim, tokens, steps, tools, calls in (
            (tree.root, 1120, 1, 1, 4),
            (tree.child, 1109, 1, 1, 3),
            (tree.grandchild, 1007, 2, 0, 2),
        ):
            response = await journal.response(claim.name)
            assert (response.tokens_used, response.steps_used, response.tool_calls) == (tokens, steps, tools)
            assert response.usage.model_calls == calls

    async def test_what_the_store_counts_is_what_the_journal_adds_up_to(self, journal, made, tree):
        for claim in (tree.root, tree.child, tree.grandchild):
            await journal.append(claim, "k", [made.said(tokens=(7, 5)), made.outcome()])
        state = RunState()
        for event in await tree.events(tree.root):
            state.apply(event)
        response = await journal.response(tree.root.name)
        assert state.usage == response.usage
        assert (state.tokens, state.sequence) == (response.tokens_used, response.last_sequence)

    async def test_large_events_come_back_whole_at_every_ancestor(self, journal, made, tree):
        await journal.append(tree.grandchild, "k", [made.notice("x" * 100_000)])
        for claim in (tree.root, tree.child, tree.grandchild):
            (event,) = await tree.events(claim)
            assert len(leaf(event).notice.detail) == 100_000

    async def test_nothing_of_an_ended_ancestor_changes_any_more(self, journal, made, tree):
        await journal.finish(tree.child, "COMPLETED", [made.result()])
        before = await journal.response(tree.child.name)
        of_root = len(await tree.events(tree.root))
        await journal.append(tree.grandchild, "k", [made.said(tokens=(50, 50))])
        assert await journal.response(tree.child.name) == before
        assert len(await tree.events(tree.root)) == of_root
        assert (await journal.response(tree.root.name)).tokens_used == 0

    async def test_a_child_cannot_overfill_the_journals_above_it(self, journal, made, tree):
        for number in range(10):
            await journal.append(tree.root, f"k{number}", [made.notice()] * 1000)
        with pytest.raises(ResultTooLargeError):
            await journal.append(tree.grandchild, "k", [made.notice()])
        assert await tree.events(tree.grandchild) == []
        await journal.finish(tree.grandchild, "FAILED", [made.result()])
        assert leaf((await tree.events(tree.root))[-1]).HasField("result")


class TestBirth:
    @pytest.mark.parametrize("end", ["ended", "cancelled", "unknown"])
    async def test_a_child_of_a_parent_that_is_over_is_refused(self, journal, made, claimed, end):
        parent = made.task()
        if end != "unknown":
            claim = await claimed(parent)
        if end == "ended":
            await journal.finish(claim, "COMPLETED", [made.result()])
        if end == "cancelled":
            await journal.cancel(claim.name, "enough")
        with pytest.raises(TaskCancelledError):
            await journal.accept(made.child(parent), claim=False)

    async def test_a_child_s_time_ends_just_after_its_parent_s(self, journal, made, claimed):
        parent = made.task(timeout_ms=10_000)
        await claimed(parent)
        child = made.child(parent, timeout_ms=60_000)
        await journal.accept(child, claim=False)
        mine, above = await journal.record(child.name), await journal.record(parent.name)
        assert above.deadline < mine.deadline <= above.deadline + 1_000

    async def test_children_overtake_roots_that_wait(self, journal, made, claimed):
        parent = made.task("parent")
        await claimed(parent)
        await journal.accept(made.task("waiting"), claim=False)
        child = made.child(parent)
        await journal.accept(child, claim=False)
        assert (await journal.claim(0, "worker")).claim.name == child.name


class TestPark:
    async def test_a_parked_task_is_owned_by_nobody_and_in_no_queue(self, journal, made, tree, store):
        assert await journal.park(tree.root, 0, made.notice("parks"), children=1)
        record = await journal.record(tree.root.name)
        assert (record.state, record.status, record.barren) == ("PARKED", TASK_STATUS_RUNNING, 0)
        assert await journal.ready("worker") == 0
        assert await store.client.zscore(partition_key(0, "leases"), tree.root.name.ref) is None
        with pytest.raises(FencedError):
            await journal.append(tree.root, "k", [made.notice()])

    async def test_a_task_does_not_park_when_something_has_happened(self, journal, made, tree):
        await journal.append(tree.child, "k", [made.notice()])
        assert not await journal.park(tree.root, 0, made.notice(), children=1)
        assert await state_of(journal, tree.root) == "RUNNING"
        assert await journal.park(tree.root, 1, made.notice(), children=1)

    async def test_a_cancelled_task_does_not_park(self, journal, made, tree):
        await journal.cancel(tree.root.name, "enough")
        assert not await journal.park(tree.root, 0, made.notice(), children=1)

    async def test_the_last_child_that_ends_queues_the_parent_exactly_once(self, journal, made, claimed):
        parent = made.task("parent")
        claim = await claimed(parent)
        children = [await claimed(made.child(parent, f"c{number}")) for number in range(3)]
        assert await journal.park(claim, 0, made.notice(), children=2)
        await journal.finish(children[0], "COMPLETED", [made.result()])
        assert await state_of(journal, claim) == "PARKED"
        await journal.finish(children[1], "FAILED", [made.result()])
        assert await state_of(journal, claim) == "PENDING"
        assert await journal.ready("worker") == 1
        again = (await journal.claim(0, "worker")).claim
        await journal.finish(children[2], "COMPLETED", [made.result()])
        assert await journal.ready("worker") == 0
        record = await journal.record(again.name)
        assert (record.state, record.attempt) == ("RUNNING", 1)

    async def test_a_child_that_ends_idle_wakes_its_parent_too(self, journal, made, claimed):
        parent = made.task("parent")
        claim = await claimed(parent)
        child = made.child(parent)
        await journal.accept(child, claim=False)
        assert await journal.park(claim, 0, made.notice(), children=1)
        assert await journal.finish_idle(child.name, "FAILED", made.result())
        assert await state_of(journal, claim) == "PENDING"


class TestCancel:
    async def test_an_idle_task_is_handed_to_the_caller_to_be_ended(self, journal, made):
        await journal.accept(made.task(), claim=False)
        assert await journal.cancel(made.name(), "enough") == [made.name()]
        assert (await journal.record(made.name())).cancel == "enough"
        assert (await journal.sweep(0)).idle == [made.name()]
        assert await journal.finish_idle(made.name(), "CANCELLED", made.result())
        assert (await journal.sweep(0)).idle == []

    async def test_a_running_task_is_told_at_its_next_write(self, journal, made, claimed):
        claim = await claimed(made.task())
        assert (await journal.append(claim, "a", [made.notice()])).cancel == ""
        assert await journal.cancel(claim.name, "enough") == []
        assert await journal.cancel(claim.name, "again") == []
        assert (await journal.append(claim, "b", [made.notice()])).cancel == "enough"
        assert await journal.beat([claim]) == type(await journal.beat([]))(frozenset(), frozenset({claim.name.ref}))

    async def test_a_whole_tree_is_stopped_and_only_its_idle_part_returned(self, journal, made, claimed):
        root = made.task("root")
        child, other = made.child(root, "c1"), made.child(root, "c2")
        grandchild = made.child(child, "c3")
        claims = {task.name: await claimed(task) for task in (root, child)}
        await journal.accept(other, claim=False)
        await journal.accept(grandchild, claim=False)
        assert set(await journal.cancel(root.name, "enough")) == {other.name, grandchild.name}
        for claim in claims.values():
            assert (await journal.append(claim, "k", [made.notice()])).cancel == "enough"

    async def test_a_child_alone_is_cancelled_without_its_parent(self, journal, made, tree):
        await journal.cancel(tree.child.name, "enough")
        flags = [(await journal.record(claim.name)).cancel for claim in (tree.root, tree.child, tree.grandchild)]
        assert flags == ["", "enough", "enough"]

    async def test_children_of_an_ended_parent_are_stopped(self, journal, made, tree, claimed):
        waiting = made.child(made.task("root"), "c9")
        await journal.accept(waiting, claim=False)
        await journal.finish(tree.root, "COMPLETED", [made.result()])
        assert (await journal.append(tree.child, "k", [made.notice()])).cancel == "the parent task ended"
        assert (await journal.sweep(0)).idle == [waiting.name]

    async def test_an_ended_task_stays_as_it_is(self, journal, made, claimed):
        claim = await claimed(made.task())
        await journal.finish(claim, "COMPLETED", [made.result()])
        assert await journal.cancel(claim.name, "too late") == []
        assert (await journal.record(claim.name)).cancel == ""
