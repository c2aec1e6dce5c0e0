"""The backlog: what metrics say of tasks that wait."""

import pytest

from meshwright.agents.backlog import Backlog
from meshwright.core import telemetry
from meshwright.core.store import partition_key


@pytest.fixture
def submit(made, journal):
    async def submitted(task_id):
        await journal.accept(made.task(task_id), claim=False)
        return made.name(task_id)

    return submitted


def seen(metric, version=""):
    return metric.labels("worker", version)._value.get()


async def age(journal, name, seconds):
    """Has a task wait since some seconds ago."""
    key = partition_key(0, "task", name.ref)
    (since,) = await journal.store.run(("HGET", key, "queued"))
    await journal.store.run(("HSET", key, "queued", int(since) - seconds * 1000))


async def test_it_tells_how_many_wait_and_for_how_long_the_first_one(journal, submit):
    first = await submit("t1")
    await submit("t2")
    await age(journal, first, 90)
    await Backlog(journal, "worker", "1.0.0").measure()
    assert seen(telemetry.TASKS_READY) == 2
    assert 90 <= seen(telemetry.READY_SECONDS) < 150
    assert seen(telemetry.TASKS_READY, "1.0.0") == 0


async def test_a_queue_that_was_emptied_is_told_as_empty(journal, submit):
    await submit("t1")
    await Backlog(journal, "worker", "1.0.0").measure()
    await journal.claim(0, "worker")
    await Backlog(journal, "worker", "1.0.0").measure()
    assert (seen(telemetry.TASKS_READY), seen(telemetry.READY_SECONDS)) == (0, 0)


async def test_a_task_that_is_given_back_waits_from_then_on(journal, submit):
    name = await submit("t1")
    await age(journal, name, 90)
    await journal.release((await journal.claim(0, "worker")).claim)
    await Backlog(journal, "worker", "1.0.0").measure()
    assert seen(telemetry.TASKS_READY) == 1
    assert seen(telemetry.READY_SECONDS) < 60


async def test_tasks_that_stay_with_a_version_are_told_apart(journal, submit):
    await submit("t1")
    claim = (await journal.claim(0, "worker", version="1.0.0", is_pinning=True)).claim
    await journal.release(claim)
    await Backlog(journal, "worker", "1.0.0").measure()
    assert (seen(telemetry.TASKS_READY), seen(telemetry.TASKS_READY, "1.0.0")) == (0, 1)


async def test_the_store_is_asked_at_most_every_five_seconds(journal, submit):
    backlog = Backlog(journal, "worker", "1.0.0")
    await backlog.measure()
    await submit("t1")
    await backlog.measure()
    assert seen(telemetry.TASKS_READY) == 0


async def test_open_tasks_of_the_whole_mesh_are_told_by_state(journal, submit):
    for task_id in ("t1", "t2", "t3"):
        await submit(task_id)
    owned = await journal.claim(0, "worker")
    await Backlog(journal, "another", "1.0.0").measure()
    states = {state: telemetry.TASKS_OPEN.labels(state)._value.get() for state in ("running", "waiting")}
    assert states == {"running": 1, "waiting": 2}
    await journal.release(owned.claim)
    await Backlog(journal, "another", "1.0.0").measure()
    assert telemetry.TASKS_OPEN.labels("running")._value.get() == 0
    assert telemetry.TASKS_OPEN.labels("waiting")._value.get() == 3
