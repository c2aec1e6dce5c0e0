"""The journal against a model of itself: Hypothesis plays owners, children, lost workers and impatient callers.

`JOURNAL_EXAMPLES=500 pytest tests/agents/test_journal_machine.py` plays the full size.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshwright.agents import journal as journal_module
from meshwright.agents.journal import Journal
from meshwright.agents.task import NewTask, Record, TaskName
from meshwright.core.errors import (
    DigestMismatchError,
    FencedError,
    InputNotPendingError,
    QueueFullError,
    TaskCancelledError,
    TaskConflictError,
    TaskExpiredError,
    TaskNotFoundError,
)
from meshwright.core.ids import child_id
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from tests.agents.journal_model import (
    ENDS,
    JournalModel,
    Known,
    Question,
    is_asking,
    is_in_line,
    is_overtaken,
    is_owned,
    is_parked,
    is_ready,
    is_repeatable,
    may_be_held,
)
from tests.agents.journal_world import PARTITIONS, Places, World

SHORT = 10
EXAMPLES = int(os.environ.get("JOURNAL_EXAMPLES", SHORT))
STEPS = 30
HOUR_MS = 3_600_000
AGENTS = ("worker", "helper")
HOLDERS = (("default", "default"), ("default", "ann"), ("acme", "default"))
MOST_TASKS = 12
MOST_BARREN = 5
ANY = st.integers(0, 10_000)


def some(wanted: Callable[[Known], bool]) -> Any:
    """A rule that makes sense only while some task is as wanted."""
    return precondition(lambda machine: any(map(wanted, machine.tasks.values())))


class JournalMachine(JournalModel):
    """Every rule does one thing to the journal and to the model, and compares the answers."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()

    def run(self, work: Any) -> Any:
        return self.world.run(work)

    def owner(self, pick: int) -> Journal:
        return self.world.owners[pick % len(self.world.owners)]

    # Rules.

    @initialize(
        agent=st.sampled_from(AGENTS),
        brief=st.booleans(),
        waiting=st.integers(0, 2),
        asks=st.booleans(),
        is_late=st.booleans(),
    )
    def begin(self, agent, brief, waiting, asks, is_late):
        """A parent that runs, or waits for its two children, one of which may ask a person; and another task."""
        parent = self.submit_one(HOLDERS[0], agent, brief=brief, by=self.owner(0), events=1)
        child = self.delegate_one(parent, AGENTS[0], brief=brief, by=self.owner(1) if asks else None)
        self.delegate_one(parent, AGENTS[1], brief=brief, by=None)
        if asks:
            self.ask_one(child, "d1", is_late=is_late)
            self.park_for_an_answer(child, 0)
        if waiting:
            self.park_one(parent, waiting, is_behind=False)
        self.submit_one(HOLDERS[-1], agent, by=None)

    def accept(self, task: NewTask, *, brief: bool, overdue: bool, by: Journal | None, events: int) -> Known:
        written = [self.event() for _ in range(events)] if by else []
        kept, journal_module.RETENTION_MS = journal_module.RETENTION_MS, 0 if brief else HOUR_MS
        try:
            accepted = self.run((by or self.world.owners[0]).accept(task, claim=by is not None, events=written))
        finally:
            journal_module.RETENTION_MS = kept
        assert accepted.is_new
        known = Known(task, overdue, brief)
        assert (accepted.claim is not None) == (by is not None and not self.is_awaited(known))
        self.tasks[task.name.ref] = known
        if accepted.claim:
            self.owned(known, accepted.claim)
            self.write(known, written)
            known.barren = 0 if written else 1
        return known

    def is_awaited(self, known: Known) -> bool:
        """Whether others wait before a task that would be run at once."""
        return any(is_in_line(other) and self.is_neighbour(known, other) for other in self.tasks.values())

    def is_neighbour(self, known: Known, other: Known) -> bool:
        is_near = known.name.partition(PARTITIONS) == other.name.partition(PARTITIONS)
        return is_near and known.task.agent_id == other.task.agent_id

    def request(self, name: TaskName, agent: str, *, overdue: bool, **facts: Any) -> NewTask:
        request = TaskRequest(prompt="Do it.", agent_id=agent, session_id="s" if agent == AGENTS[0] else "")
        return NewTask(name, agent, "h", request, 0 if overdue else HOUR_MS, **facts)

    @precondition(lambda self: len(self.tasks) < MOST_TASKS)
    @rule(holder=st.sampled_from(HOLDERS), agent=st.sampled_from(AGENTS), overdue=st.sampled_from([False, False, True]),
          brief=st.booleans(), at_once=st.booleans(), pick=ANY, events=st.integers(0, 2))  # fmt: skip
    def submit(self, holder, agent, overdue, brief, at_once, pick, events):
        by = self.owner(pick) if at_once else None
        self.submit_one(holder, agent, overdue=overdue, brief=brief, by=by, events=events)

    def submit_one(self, holder, agent, *, overdue=False, brief=False, by=None, events=0):
        name = TaskName(*holder, f"t{len(self.tasks)}")
        task = self.request(name, agent, overdue=overdue, root_id=name.task_id)
        return self.accept(task, brief=brief, overdue=overdue, by=by, events=events)

    @precondition(lambda self: self.tasks and len(self.tasks) < MOST_TASKS)
    @rule(parent=ANY, agent=st.sampled_from(AGENTS), brief=st.booleans(), at_once=st.booleans(), pick=ANY)
    def delegate(self, parent, agent, brief, at_once, pick):
        """Mostly a running task does this; a late one, whose task has ended meanwhile, must be refused."""
        above = (self.picked(parent, is_owned) if parent % 4 else None) or self.picked(parent, lambda _: True)
        if above.task.depth < 3:
            self.delegate_one(above, agent, brief=brief, by=self.owner(pick) if at_once else None)

    def delegate_one(self, above, agent, *, brief, by):
        task_id = child_id(above.task.root_id, above.name.task_id, 1, f"c{len(self.tasks)}")
        facts = {"parent_id": above.name.task_id, "root_id": above.task.root_id, "depth": above.task.depth + 1}
        task = self.request(above.name.sibling(task_id), agent, overdue=above.is_overdue, **facts)
        if above.is_living and not above.cancel:
            return self.accept(task, brief=brief, overdue=above.is_overdue, by=by, events=1)
        with pytest.raises(TaskCancelledError):
            self.run(self.world.owners[0].accept(task, claim=by is not None))
        return None

    @precondition(lambda self: self.tasks)
    @rule(pick=ANY, same=st.booleans(), at_once=st.booleans())
    def accept_again(self, pick, same, at_once):
        known = self.picked(pick, lambda _: True)
        task = self.request(known.name, known.task.agent_id, overdue=False, root_id=known.task.root_id)
        again = NewTask(task.name, task.agent_id, "h" if same else "other", task.request, HOUR_MS,
                        parent_id=known.task.parent_id, root_id=known.task.root_id, depth=known.task.depth)  # fmt: skip
        work = self.owner(pick).accept(again, claim=at_once)
        if known.is_gone:
            with pytest.raises(TaskExpiredError):
                self.run(work)
        elif not same:
            with pytest.raises(TaskConflictError):
                self.run(work)
        else:
            accepted = self.run(work)
            assert not accepted.is_new
            assert accepted.claim is None

    @some(is_in_line)
    @rule(pick=ANY)
    def find_the_queue_full(self, pick):
        known = self.picked(pick, is_in_line)
        root = next(f"f{n}" for n in range(100) if self.is_beside(known, f"f{n}"))
        task = self.request(known.name.sibling(root), known.task.agent_id, overdue=False, root_id=root)
        with pytest.raises(QueueFullError):
            self.run(self.world.strict.accept(task, claim=False))

    def is_beside(self, known: Known, root: str) -> bool:
        return known.name.sibling(root).partition(PARTITIONS) == known.name.partition(PARTITIONS)

    @rule(pick=ANY, partition=st.integers(0, PARTITIONS - 1), agent=st.sampled_from(AGENTS))
    def claim(self, pick, partition, agent):
        self.claim_one(self.owner(pick), partition, agent)

    @some(is_ready)
    @rule(pick=ANY, times=st.integers(1, 3))
    def claim_where_work_waits(self, pick, times):
        for _ in range(times):
            known = self.picked(pick, is_ready)
            if known:
                self.claim_one(self.owner(pick), known.name.partition(PARTITIONS), known.task.agent_id)

    def claim_one(self, owner: Journal, partition: int, agent: str) -> Known | None:
        here = [known for known in self.tasks.values() if known.name.partition(PARTITIONS) == partition]
        ready = {known.name.ref for known in here if is_ready(known) and known.task.agent_id == agent}
        suspects = {ref for ref in ready if self.tasks[ref].is_suspect}
        claim = self.run(owner.claim(partition, agent)).claim
        assert (claim is not None) == bool(ready)
        if claim is None:
            return None
        assert claim.name.ref in (suspects or ready)
        known = self.tasks[claim.name.ref]
        self.owned(known, claim)
        return known

    @some(is_owned)
    @rule(pick=ANY, events=st.integers(1, 3), is_large=st.sampled_from([False, False, True]))
    def append(self, pick, events, is_large):
        for known in filter(is_owned, list(self.tasks.values())):
            self.append_one(known, pick, events, is_large=is_large)

    def append_one(self, known: Known, pick: int, events: int, *, is_large: bool) -> None:
        written = [self.event(70_000 if is_large else 0) for _ in range(events)]
        key = f"k{self.serial}"
        appended = self.run(self.owner(pick).append(known.claim, key, written))
        first = self.write(known, written)
        known.keys[key] = (first, written)
        known.barren = 0
        assert (appended.first, appended.cancel) == (first, known.cancel)

    @some(is_repeatable)
    @rule(pick=ANY, key=ANY)
    def append_again(self, pick, key):
        known = self.picked(pick, is_repeatable)
        name, (first, written) = list(known.keys.items())[key % len(known.keys)]
        appended = self.run(self.owner(pick).append(known.claim, name, written))
        assert (appended.first, appended.cancel) == (first, known.cancel)

    @some(is_overtaken)
    @rule(pick=ANY, which=ANY)
    def write_too_late(self, pick, which):
        known = self.picked(pick, is_overtaken)
        claim, owner = known.stale[which % len(known.stale)], self.owner(pick)
        for late in (
            owner.append(claim, f"late{which}", [self.event()]),
            owner.park(claim, len(known.log), self.event(), children=1),
            owner.finish(claim, "COMPLETED", [self.result()]),
        ):
            with pytest.raises(FencedError):
                self.run(late)
        self.run(owner.release(claim))
        assert self.run(owner.beat([claim])).lost == {claim.name.ref}

    @precondition(lambda self: any(map(self.is_parent, self.tasks.values())))
    @rule(pick=ANY, is_behind=st.sampled_from([False, False, False, True]), many=ANY)
    def park(self, pick, is_behind, many):
        known = self.picked(pick, self.is_parent)
        self.park_one(known, 1 + many % len(self.children(known)), is_behind=is_behind)

    def park_one(self, known: Known, waiting: int, *, is_behind: bool) -> None:
        event, last = self.event(), len(known.log) - is_behind
        is_parked = self.run(self.world.owners[0].park(known.claim, last, event, children=waiting))
        assert is_parked == (not is_behind and not known.cancel)
        if is_parked:
            self.parked(known, event)
            known.waiting = waiting

    def parked(self, known: Known, event: StepEvent) -> None:
        self.write(known, [event])
        known.lose_claim("PARKED")
        known.waiting, known.barren = 0, 0

    @some(is_owned)
    @rule(pick=ANY, comes_at_once=st.booleans())
    def park_for_a_turn(self, pick, comes_at_once):
        known, event = self.running(pick), self.event()
        if comes_at_once:
            self.nudge_one(known)
        is_parked = self.run(self.owner(pick).park(known.claim, len(known.log), event, is_turn=True))
        assert is_parked == (not known.cancel and not known.is_nudged)
        known.is_nudged = known.is_nudged and bool(known.cancel)
        if is_parked:
            self.parked(known, event)
            known.is_turn = True

    @precondition(lambda self: self.tasks)
    @rule(pick=ANY)
    def nudge(self, pick):
        known = self.picked(pick, lambda known: known.is_turn) or self.picked(pick, lambda _: True)
        self.nudge_one(known)

    def nudge_one(self, known: Known) -> None:
        self.run(self.world.owners[0].nudge(known.name))
        if known.is_living and known.state == "PARKED" and known.is_turn:
            known.enter_queue()
        elif known.is_living:
            known.is_nudged = True

    @some(is_owned)
    @rule(pick=ANY, digest=st.sampled_from(["", "d1", "d2"]), is_late=st.booleans())
    def ask_a_person(self, pick, digest, is_late):
        self.ask_one(self.running(pick), digest, is_late=is_late)

    def ask_one(self, known: Known, digest: str, *, is_late: bool) -> None:
        event, key = self.event(), f"q{self.serial}"
        event.input_requested.input_id, event.input_requested.intent_digest = key, digest
        event.input_requested.expire_time.FromMilliseconds(1 if is_late else 2**42)
        self.run(self.world.owners[0].append(known.claim, key, [event]))
        known.keys[key] = (self.write(known, [event]), [event])
        known.barren = 0
        for here in self.lineage(known):
            here.shown[key] = Question(known.name, digest, is_late)

    @some(may_be_held)
    @rule(pick=ANY, children=st.booleans())
    def park_for_a_person(self, pick, children):
        known = self.picked(pick, may_be_held)
        self.park_for_an_answer(known, len(self.children(known)) if children else 0)

    def park_for_an_answer(self, known: Known, waiting: int) -> None:
        event = self.event()
        work = self.world.owners[0].park(known.claim, len(known.log), event, children=waiting, is_held=True)
        assert self.run(work) == (not known.cancel)
        if not known.cancel:
            self.parked(known, event)
            known.is_held, known.waiting = True, waiting

    @some(is_asking)
    @rule(pick=ANY, which=ANY, is_right=st.sampled_from([True, True, False]))
    def decide(self, pick, which, is_right):
        """A person answers, at the task that asks or at one above it, perhaps about another call."""
        known = self.picked(pick, is_asking)
        key = sorted(known.shown)[which % len(known.shown)]
        self.decide_one(known, key, is_right=is_right)

    def decide_one(self, known: Known, key: str, *, is_right: bool = True) -> None:
        question, event = known.shown[key], self.event()
        origin, journal = self.tasks[question.origin.ref], self.world.owners[0]
        if not origin.is_living:
            with pytest.raises(InputNotPendingError):
                self.run(journal.resolve(known.name, key, question.digest, event))
            return
        if not is_right:
            with pytest.raises(DigestMismatchError):
                self.run(journal.resolve(known.name, key, "other", event))
            return
        self.run(journal.resolve(known.name, key, question.digest, event))
        self.write(origin, [event])
        for here in self.lineage(origin):
            here.shown.pop(key, None)
        if origin.state == "PARKED":
            origin.enter_queue()
        with pytest.raises(InputNotPendingError):
            self.run(journal.resolve(origin.name, key, question.digest, event))

    @some(is_parked)
    @rule(pick=ANY, which=ANY, state=st.sampled_from(ENDS))
    def end_what_is_waited_for(self, pick, which, state):
        children = self.children(self.picked(pick, is_parked))
        if not children:
            return
        child = children[which % len(children)]
        if child.claim:
            self.finish_one(child, state)
        else:
            self.end_idle({child.name})

    @some(is_owned)
    @rule(pick=ANY, state=st.sampled_from(ENDS), events=st.integers(0, 2))
    def finish(self, pick, state, events):
        self.finish_one(self.running(pick), state, events)

    def finish_one(self, known: Known, state: str, events: int = 0) -> None:
        written = [*(self.event() for _ in range(events)), self.result()]
        finished = self.run(self.world.owners[0].finish(known.claim, state, written))
        assert finished.first == self.write(known, written)
        self.conclude(known, state)

    def end_idle(self, names: set[TaskName]) -> None:
        for name in sorted(names, key=lambda name: name.ref):
            known, result = self.tasks[name.ref], self.result()
            is_idle = known.is_living and known.state != "RUNNING"
            assert self.run(self.world.owners[0].finish_idle(name, "CANCELLED", result)) == is_idle
            if is_idle:
                self.write(known, [result])
                self.conclude(known, "CANCELLED")

    @precondition(lambda self: self.tasks)
    @rule(pick=ANY, is_caller_lost=st.booleans())
    def cancel(self, pick, is_caller_lost):
        """A caller that dies before it ends what is idle leaves that to the sweep."""
        known = self.picked(pick, lambda _: True)
        idle = set(self.run(self.owner(pick).cancel(known.name, "enough")))
        assert idle == (self.flag(known, "enough", itself=True) if known.is_living else set())
        if not is_caller_lost:
            self.end_idle(idle)

    @precondition(lambda self: self.tasks)
    @rule(pick=ANY)
    def end_one_that_may_be_idle(self, pick):
        known = self.picked(pick, lambda known: not known.is_gone)
        if known:
            self.end_idle({known.name})

    @some(is_owned)
    @rule(pick=ANY)
    def beat(self, pick):
        held = [known for known in self.tasks.values() if known.claim]
        beaten = self.run(self.owner(pick).beat([known.claim for known in held]))
        assert beaten.lost == frozenset()
        assert beaten.cancelled == {known.name.ref for known in held if known.cancel}
        for known in held:
            known.is_lapsed = False

    @some(is_owned)
    @rule(pick=ANY)
    def fall_silent(self, pick):
        known = self.running(pick)
        assert self.run(self.world.doomed.beat([known.claim])).lost == frozenset()
        known.is_lapsed = True

    @some(is_owned)
    @rule(pick=ANY, times=st.integers(1, 6))
    def bring_down_workers(self, pick, times):
        """One task takes down worker after worker."""
        victim = self.running(pick)
        for _ in range(times):
            if victim.claim:
                self.run(self.world.doomed.beat([victim.claim]))
                victim.is_lapsed = True
            self.sweep_one(victim.name.partition(PARTITIONS), is_sweeper_lost=True)
            while is_ready(victim):
                self.claim_one(self.world.owners[0], victim.name.partition(PARTITIONS), victim.task.agent_id)

    @rule(partition=st.integers(0, PARTITIONS - 1), is_sweeper_lost=st.booleans())
    def sweep(self, partition, is_sweeper_lost):
        self.sweep_one(partition, is_sweeper_lost=is_sweeper_lost)

    def sweep_one(self, partition: int, *, is_sweeper_lost: bool = False) -> None:
        here = [known for known in self.tasks.values() if known.name.partition(PARTITIONS) == partition]
        lost = [known for known in here if known.claim and known.is_lapsed]
        swept = self.run(self.world.owners[0].sweep(partition))
        assert (swept.taken, swept.stranded) == (len(lost), [])
        late = [(known.name, key) for known in here for key, one in known.own_questions.items() if one.is_late]
        assert sorted(map(str, swept.lapsed)) == sorted(map(str, late))
        for known in lost:
            known.is_poison = known.barren >= MOST_BARREN
            known.enter_queue()
            known.attempt += 1
        resting = [known for known in here if known.is_living and known.state != "RUNNING"]
        hopeless = [known for known in resting if known.cancel or known.is_poison]
        hopeless += [known for known in resting if known.is_overdue and not self.is_frozen(known)]
        assert {known.name for known in hopeless} <= set(swept.idle)
        assert {name.ref for name in swept.idle} <= set(self.tasks)
        if not is_sweeper_lost:
            self.end_idle(set(swept.idle))
            for name, key in late:
                if key in self.tasks[name.ref].shown:
                    self.decide_one(self.tasks[name.ref], key)

    @some(is_owned)
    @rule(pick=ANY)
    def release(self, pick):
        known = self.running(pick)
        self.run(self.owner(pick).release(known.claim))
        known.barren = max(0, known.barren - 1)
        known.enter_queue()

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def purge(self, partition):
        self.purge_one(partition)

    def purge_one(self, partition: int) -> None:
        over = [
            known
            for known in self.tasks.values()
            if known.is_brief and known.state in ENDS and not known.is_gone
            and known.name.partition(PARTITIONS) == partition
        ]  # fmt: skip
        assert self.run(self.world.owners[0].purge(partition)) == len(over)
        for known in over:
            known.is_gone = True

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def relay(self, partition):
        self.relay_one(partition)

    def relay_one(self, partition: int) -> None:
        journal = self.world.owners[0]
        waiting = self.run(journal.outbox(partition))
        here = [known for known in self.tasks.values() if known.name.partition(PARTITIONS) == partition]
        assert sorted(name.ref for _, name in waiting) == sorted(known.name.ref for known in here if known.is_in_outbox)
        for entry_id, name in waiting:
            self.run(journal.outbox_done(partition, entry_id))
            self.tasks[name.ref].is_in_outbox = False

    @some(is_owned)
    @rule(pick=ANY)
    def show_a_passing_frame(self, pick):
        self.run(self.owner(pick).pass_on(self.running(pick).name, self.event()))

    # What holds after every rule.

    @invariant()
    def everything_is_as_it_must_be(self):
        self.run(self.check())

    async def check(self) -> None:
        places = await Places.read(self.world.store)
        for ref, known in self.tasks.items():
            if known.is_gone:
                allowed = {"tomb"} | ({"children"} if self.above(known) else set())
                allowed |= {"outbox"} if known.is_in_outbox else set()
                assert places.traces(ref) <= allowed
                with pytest.raises(TaskNotFoundError):
                    await self.world.owners[0].record(known.name)
                continue
            await self.check_journal(known, places)
            self.check_place(known, places)
        running = Counter((known.task.agent_id, known.name.tenant) for known in self.tasks.values() if known.claim)
        assert places.running == running

    async def check_journal(self, known: Known, places: Places) -> None:
        record = Record.parse(known.name, places.records[known.name.ref], 0)
        assert record.asks == len(known.shown)
        facts = (known.state, known.cancel, len(known.log), known.attempt, known.barren)
        assert (record.state, record.cancel, record.sequence, record.attempt, record.barren) == facts
        if known.checked == len(known.log):  # what is written does not change: the end looks at all of it once more
            return
        known.checked = len(known.log)
        entries = [entry async for entry in self.world.owners[0].replay(known.name)]
        assert [entry.sequence for entry in entries] == list(range(1, len(known.log) + 1))
        assert [(entry.path, entry.payload) for entry in entries] == known.log

    def check_place(self, known: Known, places: Places) -> None:
        """A task is in the queue, or owned under a lease, or waits for somebody who lives, or is over."""
        ref, state = known.name.ref, known.state
        assert places.many("ready", ref) == places.many("line", ref) == is_in_line(known)
        assert places.many("suspects", ref) == (is_ready(known) and known.is_suspect)
        assert places.many("leases", ref) == (state == "RUNNING")
        assert places.many("deadlines", ref) == known.is_living
        assert places.is_frozen(ref) == (known.is_living and self.is_frozen(known))
        assert places.many("inbox", known.name.task_id) == bool(known.shown)
        assert places.many("expiry", ref) == (not known.is_living)
        assert places.fence(ref) == (known.claim.fence if known.claim else None)
        if state == "PARKED":
            assert known.is_held or known.is_turn or known.waiting
            assert known.waiting <= len(self.children(known))
        if (known.cancel or known.is_poison) and known.is_living and state != "RUNNING":
            assert places.many("ending", ref) == 1
        if not known.is_living:
            assert places.many("ending", ref) == 0

    # Nobody is stranded: whatever has been done, sweeps and claims alone bring every task to its end.

    def teardown(self) -> None:
        for known in filter(is_owned, self.tasks.values()):
            self.run(self.world.doomed.beat([known.claim]))
            known.is_lapsed = True
        for _ in range(2 * len(self.tasks) + 2):
            self.answer_everybody()
            self.do_all_work()
        assert [ref for ref, known in self.tasks.items() if known.is_living] == []
        for known in self.tasks.values():
            known.checked = 0
        self.run(self.check())
        for partition in range(PARTITIONS):
            self.relay_one(partition)
            self.purge_one(partition)
        self.run(self.check())
        for known in filter(lambda known: known.is_gone, self.tasks.values()):
            with pytest.raises(TaskExpiredError):
                self.run(self.world.owners[0].accept(known.task, claim=False))

    def answer_everybody(self) -> None:
        for known in self.tasks.values():
            for key in list(known.own_questions):
                self.decide_one(known, key)
            if known.is_turn:
                self.nudge_one(known)

    def do_all_work(self) -> None:
        for partition in range(PARTITIONS):
            self.sweep_one(partition)
            for agent in AGENTS:
                while known := self.claim_one(self.world.owners[0], partition, agent):
                    self.finish_one(known, "COMPLETED")


@pytest.mark.timeout(3600 if EXAMPLES > SHORT else 60)
def test_no_order_of_events_strands_doubles_or_tears_a_task(valkey):
    world = World(valkey.url)
    JournalMachine.world = world
    try:
        run_state_machine_as_test(
            JournalMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        world.close()
