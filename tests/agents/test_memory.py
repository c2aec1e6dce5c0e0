"""Session memory: each finished task once, in its holder's session, however often it is relayed."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.context import History, Turn
from meshwright.agents.memory import (
    FOLDED_AT_ONCE,
    LOADED,
    MOST_FACT_CHARS,
    MOST_FACTS,
    RECENT,
    SUMMARY_CHARS,
    Memory,
    folded,
)
from meshwright.agents.session import KEPT_MS, KEPT_TURNS, MAX_TURN_CHARS, Sessions
from meshwright.core.errors import InvalidRequestError, MemoryFullError, SessionNotFoundError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskRequest, TaskResponse


@pytest.fixture
def memory(store):
    return Memory(store)


@pytest.fixture
def sessions(journal):
    return Sessions(journal)


@pytest.fixture
def finish(journal, made, claimed, sessions):
    """Runs a task of a session to its end, without relaying it."""

    async def finished(task_id, *, session_id="s1", output="Yes.", **facts):
        request = TaskRequest(prompt=f"Prompt of {task_id}", session_id=session_id)
        claim = await claimed(made.task(task_id, request=request, **facts))
        if session_id and "parent_id" not in facts:
            await sessions.enter(claim.name, session_id)
        await journal.finish(claim, "COMPLETED", [made.result(output)])
        return claim.name

    return finished


@pytest.fixture
def remember(sessions, memory, made):
    """Adds a turn to a session as the outbox does."""

    async def remembered(number, output="short", prompt="", status=TASK_STATUS_COMPLETED):
        request = TaskRequest(prompt=prompt or f"Prompt {number}", session_id="s1")
        name = made.name(f"t{number}")
        await sessions.enter(name, "s1")
        await sessions.leave(name, request, TaskResponse(status=status, output=output, agent_id="worker"))
        await memory.settle(name, "s1")

    return remembered


async def test_a_session_shows_what_was_relayed(outbox, memory, finish, made):
    await finish("t1", output="One.")
    await finish("t2", output="Two.")
    await outbox.relay(0)
    history = await memory.load(made.name("t3"), "s1")
    assert history.turns == (Turn("Prompt of t1", "One."), Turn("Prompt of t2", "Two."))
    assert await memory.load(made.name("t3"), "s2") == History()
    assert not await memory.load(made.name("t3"), "")


async def test_a_session_belongs_to_its_holder(outbox, memory, finish, made):
    await finish("t1", principal="ann")
    await outbox.relay(0)
    assert len((await memory.load(made.name("t2", principal="ann"), "s1")).turns) == 1
    assert not await memory.load(made.name("t2", principal="bob"), "s1")
    assert await memory.page(made.name(principal="bob"), None, 10) == []


async def test_relays_at_the_same_time_remember_a_task_once(outbox, memory, finish, made):
    for number in range(5):
        await finish(f"t{number}")
    await asyncio.gather(*(outbox.relay(0) for _ in range(8)))
    assert len((await memory.load(made.name(), "s1")).turns) == 5
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
    assert (await memory.load(made.name(), "s1")).turns == (Turn("Prompt of t1", "Yes."),)


async def test_children_and_failures_are_not_remembered(memory, remember, outbox, finish, made, claimed):
    parent = made.task("root")
    await claimed(parent)
    await finish("root.a", parent_id="root", root_id="root")
    await outbox.relay(0)
    await remember(1, "Half.", status=TASK_STATUS_FAILED)
    await remember(2, "")
    history = await memory.load(made.name(), "s1")
    assert not history
    assert (await memory.about(made.name(), "s1")).turn_count == 0


async def test_a_late_repetition_brings_nothing_back(sessions, memory, made):
    request = TaskRequest(prompt="Go.", session_id="s1")
    await sessions.leave(made.name(), request, TaskResponse(status=TASK_STATUS_COMPLETED, output="Yes."))
    await memory.settle(made.name(), "s1")
    with pytest.raises(SessionNotFoundError):
        await memory.about(made.name(), "s1")


async def test_the_latest_turns_stand_and_the_summary_stands_for_the_others(memory, remember, made):
    turns = 3 * LOADED
    for number in range(turns):
        await remember(number, f"The answer is {number}.")
    history = await memory.load(made.name(), "s1")
    assert len(history.turns) == LOADED
    assert history.turns[-1] == Turn(f"Prompt {turns - 1}", f"The answer is {turns - 1}.")
    assert history.is_longer
    lines = history.summary.splitlines()
    assert lines[0] == "- Asked: Prompt 0 Answered: The answer is 0."
    assert turns - RECENT - FOLDED_AT_ONCE < len(lines) <= turns - RECENT


async def test_summaries_made_at_the_same_time_take_a_turn_in_once(memory, sessions, made):
    for number in range(RECENT + FOLDED_AT_ONCE):
        name, request = made.name(f"t{number}"), TaskRequest(prompt=f"Prompt {number}", session_id="s1")
        await sessions.enter(name, "s1")
        await sessions.leave(name, request, TaskResponse(status=TASK_STATUS_COMPLETED, output="Yes."))
    await asyncio.gather(*(memory.settle(made.name(), "s1") for _ in range(8)))
    summary = (await memory.load(made.name(), "s1")).summary
    assert [line.split()[3] for line in summary.splitlines()] == [str(number) for number in range(FOLDED_AT_ONCE)]


async def test_a_session_is_bounded_and_ends_by_itself(memory, remember, made, store):
    await remember(0, "y" * 100_000)
    history = await memory.load(made.name(), "s1")
    assert len(history.turns[0].output) <= MAX_TURN_CHARS
    session = await anext(store.client.scan_iter("*}:session"))
    await store.client.xtrim(session, maxlen=0)
    for number in range(KEPT_TURNS + 5):
        await store.client.xadd(session, {"task": f"u{number}", "prompt": "P", "output": "O"})
    await remember(1)
    assert await store.client.xlen(session) == KEPT_TURNS
    for key in [key async for key in store.client.scan_iter("*}:session*")]:
        if not key.endswith(b":sessions"):
            assert 0 < await store.client.pttl(key) <= KEPT_MS


async def test_an_answer_holds_as_many_turns_as_a_message_takes(memory, remember, made, monkeypatch):
    monkeypatch.setattr("meshwright.agents.memory.MOST_SHOWN_BYTES", 1_100)
    for number in range(5):
        await remember(number, "x" * 300)
    shown = (await memory.about(made.name(), "s1", 5)).turns
    assert [turn.task_id for turn in shown] == ["t2", "t3", "t4"]


class TestFacts:
    async def test_a_fact_is_pinned_once_and_can_be_taken_off(self, memory, made):
        fact = await memory.pin(made.name(), "s1", "  The code  is 7319. ", task_id="t9")
        again = await memory.pin(made.name(), "s1", "The code is 7319.")
        assert fact == again
        assert (fact.text, fact.task_id) == ("The code is 7319.", "t9")
        assert (await memory.load(made.name(), "s1")).facts == ("The code is 7319.",)
        await memory.unpin(made.name(), "s1", fact.fact_id)
        await memory.unpin(made.name(), "s1", fact.fact_id)
        assert not await memory.load(made.name(), "s1")

    async def test_there_is_room_for_so_many_and_so_much(self, memory, made):
        for number in range(MOST_FACTS):
            await memory.pin(made.name(), "many", f"Fact {number}")
        with pytest.raises(MemoryFullError, match="unpin"):
            await memory.pin(made.name(), "many", "One more")
        assert (await memory.pin(made.name(), "many", "Fact 1")).text == "Fact 1"
        for number in range(3):
            await memory.pin(made.name(), "much", str(number) * MOST_FACT_CHARS)
        with pytest.raises(MemoryFullError):
            await memory.pin(made.name(), "much", "x" * MOST_FACT_CHARS)

    @pytest.mark.parametrize("text", ["", " \n", "x" * (MOST_FACT_CHARS + 1)])
    async def test_what_is_no_fact_is_refused_with_its_field(self, memory, made, text):
        with pytest.raises(InvalidRequestError) as refused:
            await memory.pin(made.name(), "s1", text)
        assert "text" in refused.value.fields


class TestList:
    async def test_sessions_are_listed_by_last_use_and_paged(self, memory, made):
        for number in range(5):
            await memory.pin(made.name(), f"s{number}", "Fact.")
            await asyncio.sleep(0.002)
        await memory.pin(made.name(), "s0", "Another.")
        first = await memory.page(made.name(), None, 2)
        rest = await memory.page(made.name(), first[-1], 10)
        assert [one for _, one in first + rest] == ["s0", "s4", "s3", "s2", "s1"]

    async def test_one_that_has_gone_falls_off_the_list(self, memory, made, store):
        await memory.pin(made.name(), "s1", "Fact.")
        await store.client.delete(await anext(store.client.scan_iter("*:session:about")))
        assert await memory.abouts(made.name(), ["s1"]) == []
        assert await memory.page(made.name(), None, 10) == []

    async def test_turns_are_read_page_by_page(self, memory, remember, made, monkeypatch):
        monkeypatch.setattr("meshwright.agents.memory.PAGE", 3)
        for number in range(8):
            await remember(number)
        assert [turn.task_id async for turn in memory.turns(made.name(), "s1")] == [f"t{n}" for n in range(8)]
        assert [turn.prompt for turn in (await memory.about(made.name(), "s1", 2)).turns] == ["Prompt 6", "Prompt 7"]


texts = st.text(max_size=600)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Turn, texts, texts), max_size=60))
def test_a_summary_stays_within_its_bound_and_holds_the_latest_turns(turns):
    summary = ""
    for start in range(0, len(turns), FOLDED_AT_ONCE):
        summary = folded(summary, turns[start : start + FOLDED_AT_ONCE])
        assert len(summary) <= SUMMARY_CHARS
        assert all(line.startswith("- Asked: ") for line in summary.splitlines())
    if turns:
        assert folded("", turns[-1:]) == summary.splitlines()[-1]
