"""Session memory: each finished task once, in its holder's session, however often it is relayed."""

import asyncio

import pytest

from meshwright.agents.costs import Costs
from meshwright.agents.escrow import Escrow, SharedLimits
from meshwright.agents.memory import LOADED_TURNS, Memory, Outbox
from meshwright.agents.session import KEPT_TURNS, Sessions
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskRequest, TaskResponse


@pytest.fixture
def memory(store):
    return Memory(store)


@pytest.fixture
def sessions(journal):
    return Sessions(journal)


@pytest.fixture
def outbox(journal, sessions):
    return Outbox(journal, sessions, Escrow(journal, SharedLimits()), Costs(journal))


@pytest.fixture
def finish(journal, made, claimed):
    """Runs a task of a session to its end, without relaying it."""

    async def finished(task_id, *, session_id="s1", output="Yes.", **facts):
        request = TaskRequest(prompt=f"Prompt of {task_id}", session_id=session_id)
        claim = await claimed(made.task(task_id, request=request, **facts))
        await journal.finish(claim, "COMPLETED", [made.result(output)])
        return claim.name

    return finished


def texts(messages):
    return [message.text for message in messages]


async def test_a_session_shows_what_was_relayed(outbox, memory, finish, made):
    await finish("t1", output="One.")
    await finish("t2", output="Two.")
    await outbox.relay(0)
    history = await memory.load(made.name("t3"), "s1")
    assert texts(history) == ["Prompt of t1", "One.", "Prompt of t2", "Two."]
    assert [message.role for message in history] == ["user", "assistant"] * 2
    assert await memory.load(made.name("t3"), "s2") == []
    assert await memory.load(made.name("t3"), "") == []


async def test_a_session_belongs_to_its_holder(outbox, memory, finish, made):
    await finish("t1", principal="ann")
    await outbox.relay(0)
    assert len(await memory.load(made.name("t2", principal="ann"), "s1")) == 2
    assert await memory.load(made.name("t2", principal="bob"), "s1") == []


async def test_relays_at_the_same_time_remember_a_task_once(outbox, memory, finish, made):
    for number in range(5):
        await finish(f"t{number}")
    await asyncio.gather(*(outbox.relay(0) for _ in range(8)))
    assert len(await memory.load(made.name(), "s1")) == 10
    assert await outbox.relay(0) == 0


async def test_a_task_without_a_session_leaves_nothing_behind(outbox, finish):
    await finish("t1", session_id="")
    assert await outbox.relay(0) == 0


async def test_a_task_that_expired_unrelayed_does_not_stop_the_others(outbox, memory, finish, journal, made, store):
    gone = await finish("gone")
    await finish("t1")
    await store.client.zadd(partition_key(0, "expiry"), {gone.ref: 1})
    assert await journal.purge(0) == 1
    assert await outbox.relay(0) == 2
    assert texts(await memory.load(made.name(), "s1")) == ["Prompt of t1", "Yes."]


async def test_children_and_failures_are_not_remembered(memory, sessions, outbox, finish, made, claimed):
    parent = made.task("root")
    await claimed(parent)
    await finish("root.a", parent_id="root", root_id="root")
    await outbox.relay(0)
    request = TaskRequest(prompt="Go.", session_id="s1")
    await sessions.leave(made.name(), request, TaskResponse(status=TASK_STATUS_FAILED, output="Half."))
    await sessions.leave(made.name(), request, TaskResponse(status=TASK_STATUS_COMPLETED))
    assert await memory.load(made.name(), "s1") == []


async def test_the_latest_turns_are_shown_as_far_as_they_fit(memory, sessions, made, store):
    async def remember(number, output):
        request = TaskRequest(prompt=f"Prompt {number}", session_id="s1")
        response = TaskResponse(status=TASK_STATUS_COMPLETED, output=output)
        await sessions.leave(made.name(f"t{number}"), request, response)

    for number in range(KEPT_TURNS + 5):
        await remember(number, "short")
    loaded = texts(await memory.load(made.name(), "s1"))
    assert len(loaded) == 2 * LOADED_TURNS
    assert loaded[-2:] == [f"Prompt {KEPT_TURNS + 4}", "short"]
    key = await anext(store.client.scan_iter("*}:session"))
    assert await store.client.xlen(key) == KEPT_TURNS
    assert await store.client.pttl(key) > 0
    await remember(500, "x" * 4_000)
    await remember(501, "y" * 6_000)
    assert texts(await memory.load(made.name(), "s1"))[0] == "Prompt 501"
