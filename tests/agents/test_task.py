"""A task: its name in keys, its record, its events as watchers see them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.journal import parse_ref
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import LONGEST_MS, Entry, Record, TaskName, counted, counters_of, leaf
from meshwright.core.errors import DataLossError
from meshwright.gen.agents.v1.step_event_pb2 import ChildStep, StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_INPUT_REQUIRED,
    TASK_STATUS_RUNNING,
    TaskRequest,
    TaskResponse,
)

FIELDS = ["state", "agent", "request", "depth", "trace", "created", "ended", "seq", "cost_micros", "scopes", "shared"]
"""Of a record, as the store holds it."""


@pytest.mark.parametrize(
    "name", [TaskName("default", "default", "t1"), TaskName("a/b", "c:d{e}", "t1.x"), TaskName("ä", "%2F", "_-")]
)
def test_a_name_survives_its_spelling_in_keys(name):
    assert parse_ref(name.ref) == name
    assert name.ref.count("/") == 2
    assert not set("{}: ") & set(name.ref)


def test_a_child_shares_the_partition_of_its_root_and_tenants_do_not_collide():
    root = TaskName("a", "p", "t1")
    assert root.sibling("t1.abc").partition(64) == root.partition(64) == TaskName("a", "q", "t1").partition(64)
    assert len({TaskName(str(n), "p", "t1").partition(64) for n in range(50)}) > 20


class TestRecord:
    def record(self, **fields):
        stored = {"state": "RUNNING", "agent": "worker", "created": 1_000, "request": b"", "trace": "00-abc-def-01"}
        return Record.parse(
            TaskName("a", "p", "t1"),
            {
                name.encode(): value if isinstance(value, bytes) else str(value).encode()
                for name, value in (stored | fields).items()
            },
            now=5_000,
        )

    def test_a_task_that_goes_on_has_lasted_until_now(self):
        response = self.record().response()
        assert (response.duration_ms, response.trace_id) == (4_000, "abc")
        assert not response.HasField("end_time")
        assert self.record(ended=2_500).response().duration_ms == 1_500

    def test_a_duration_never_leaves_its_range(self):
        assert self.record(ended=1).response().duration_ms == 0
        assert self.record(ended=2**45).response().duration_ms == LONGEST_MS

    def test_a_parked_task_is_running_for_its_callers(self):
        assert self.record(state="PARKED").status == TASK_STATUS_RUNNING
        assert self.record(state="PARKED", asks=1).status == TASK_STATUS_INPUT_REQUIRED
        assert self.record(state="RUNNING", asks=1).status == TASK_STATUS_RUNNING
        assert not self.record(state="PARKED").is_terminal

    @pytest.mark.parametrize(
        "damage",
        [
            {"request": b"\xff"},
            {"state": "LOST"},
            {"created": "soon"},
            {"agent": b"\xff"},
            {"scopes": "["},
            {"scopes": "7"},
            {"shared": "1 2 3 4 5"},
        ],
    )
    def test_one_that_was_damaged_in_the_store_is_lost_data(self, damage):
        with pytest.raises(DataLossError, match="task t1"):
            self.record(**damage)

    @given(fields=st.dictionaries(st.sampled_from(FIELDS), st.binary(max_size=20)))
    def test_whatever_stands_in_the_store_is_a_record_or_lost_data(self, fields):
        with contextlib.suppress(DataLossError):
            self.record(**fields).response()

    def test_a_fresh_record_is_what_the_store_holds(self, made):
        task = made.task(request=TaskRequest(prompt="Go."))
        fresh = Record.fresh(task, 1_000, task.shared)
        assert (fresh.created, fresh.deadline, fresh.attempt, fresh.sequence) == (1_000, 1_000 + task.timeout_ms, 1, 0)

    async def test_a_fresh_record_is_what_a_claimed_acceptance_wrote(self, journal, made):
        task = made.task(request=TaskRequest(prompt="Go."), shared=SharedLimits(tenant_day=5))
        accepted = await journal.accept(task, claim=True)
        stored = await journal.record(task.name)
        fresh = Record.fresh(task, accepted.time_ms, accepted.shared)
        differing = {name for name in fresh.__slots__ if getattr(fresh, name) != getattr(stored, name)}
        assert differing <= {"now"}

    async def test_a_child_shares_what_its_root_does_whatever_it_is_told(self, journal, made):
        root = made.task(shared=SharedLimits(user_day=5))
        await journal.accept(root, claim=True)
        child = made.child(root, shared=SharedLimits(tenant_day=7))
        accepted = await journal.accept(child, claim=True)
        assert accepted.shared == (await journal.record(child.name)).shared == root.shared


class TestEntry:
    def test_store_and_path_say_whose_event_it_is(self, made):
        payload = made.notice("deep").SerializeToString()
        event = Entry(9, 1_500, "t1.a:4,t1.b:2", payload).event("t1")
        assert (event.task_id, event.sequence, event.time.ToMilliseconds()) == ("t1", 9, 1_500)
        child = event.child
        assert (child.child_task_id, child.event.task_id, child.event.sequence) == ("t1.a", "t1.a", 4)
        grandchild = child.event.child
        assert (grandchild.child_task_id, grandchild.event.task_id, grandchild.event.sequence) == ("t1.b", "t1.b", 2)
        assert leaf(event).notice.detail == "deep"

    def test_a_result_learns_its_number_and_its_end(self):
        result = TaskResponse(output="Done.")
        result.create_time.FromMilliseconds(1_000)
        event = Entry(7, 3_500, "", StepEvent(result=result).SerializeToString()).event("t1")
        assert (event.result.last_sequence, event.result.duration_ms) == (7, 2_500)
        assert event.result.end_time == event.time

    def test_one_that_was_damaged_in_the_store_is_lost_data(self):
        with pytest.raises(DataLossError, match="entry 7 in the journal of task t1"):
            Entry(7, 3_500, "", b"\xff").event("t1")


def test_an_event_counts_for_a_task_as_for_its_ancestors(made):
    said = made.said(tokens=(5, 0))
    below = StepEvent(child=ChildStep(child_task_id="t1.a", event=said))
    assert counters_of(said) == counters_of(below) == {"input_tokens": 5, "steps": 1, "model_calls": 1}
    assert counters_of(made.outcome()) == {"tool_calls": 1}
    assert counters_of(made.notice()) == {}
    assert counted([said, made.outcome(), said]) == {
        "input_tokens": 10,
        "steps": 2,
        "model_calls": 2,
        "tool_calls": 1,
    }
