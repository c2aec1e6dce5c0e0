"""Answers that are kept: within bounds, found again by likeness, gone with their time and their session."""

import pytest

from meshwright.agents import answers as kept_answers
from meshwright.agents.answers import Answers, Kept, closest, slot_of
from meshwright.agents.embedders.hashing import hashed
from meshwright.agents.question import Question
from meshwright.agents.recall import packed
from meshwright.core.codec import OVERHEAD
from meshwright.core.store import partition_key
from tests.conftest import WITH_CODEC

VECTOR = packed(hashed("refund window"))
ANSWER = Kept("It is.", "q", "p", "m", 3, 4)


def question(made, number=0, scope="s" * 64, vector=b"", **name):
    return Question(made.name(**name), scope, f"{number:064}", "q" if vector else "", vector)


@pytest.fixture
def answers(store):
    return Answers(store)


async def kept(answers, made, numbers, **facts):
    return [number for number in numbers if await answers.find(question(made, number, **facts))]


async def test_beyond_a_number_those_go_that_end_first(answers, made, store, monkeypatch):
    monkeypatch.setattr(kept_answers, "MOST_ANSWERS", 3)
    for number in range(5):
        await answers.keep(question(made, number), ANSWER, "", 60_000 + number * 1_000)
    assert await kept(answers, made, range(5)) == [2, 3, 4]


async def test_beyond_a_size_too(answers, made, store, monkeypatch):
    monkeypatch.setattr(kept_answers, "MOST_BYTES", 350 + 3 * OVERHEAD * WITH_CODEC)
    for number in range(5):
        await answers.keep(question(made, number), ANSWER, "", 60_000 + number * 1_000)
    assert await kept(answers, made, range(5)) == [2, 3, 4]
    slot = slot_of(made.name())
    sizes = [await store.client.strlen(partition_key(slot, "answer", f"{number:064}")) for number in (2, 3, 4)]
    assert int(await store.client.get(partition_key(slot, "answers", "bytes"))) == sum(sizes)


async def test_of_one_scope_so_many_are_compared(answers, made, store, monkeypatch):
    monkeypatch.setattr(kept_answers, "MOST_ALIKE", 2)
    for number in range(4):
        await answers.keep(question(made, number, vector=VECTOR), ANSWER, "", 60_000 + number * 1_000)
    found = await answers.alike(question(made, 9, vector=VECTOR))
    assert [one.similarity for one in found] == [pytest.approx(1)] * 2
    assert await kept(answers, made, range(4)) == [2, 3]


async def test_the_same_question_takes_its_own_place(answers, made, store):
    for _ in range(3):
        await answers.keep(question(made, vector=VECTOR), ANSWER, "s1", 60_000)
    slot = slot_of(made.name())
    assert await store.client.zcard(partition_key(slot, "answers")) == 1
    assert await answers.erase(made.name(), "s1") == 1
    assert not [key async for key in store.client.scan_iter("*answer*")]


async def test_nothing_outlives_the_last_answer(answers, made, store, becomes):
    await answers.keep(question(made, vector=VECTOR), ANSWER, "s1", 200)
    assert [key async for key in store.client.scan_iter("*") if b"answers" in key]

    async def is_empty():
        return not [key async for key in store.client.scan_iter("*") if b"answers" in key]

    await becomes(is_empty)


async def test_what_has_ended_makes_room_for_what_comes(answers, made, store, becomes):
    await answers.keep(question(made, 0, vector=VECTOR), ANSWER, "s1", 60_000)
    await answers.keep(question(made, 1, vector=VECTOR), ANSWER, "s1", 50)

    async def has_ended():
        return not await answers.find(question(made, 1))

    await becomes(has_ended)
    assert len(await answers.alike(question(made, 9, vector=VECTOR))) == 1
    await answers.keep(question(made, 2), ANSWER, "", 60_000)
    slot = slot_of(made.name())
    assert await store.client.zcard(partition_key(slot, "answers")) == 2
    assert await store.client.hlen(partition_key(slot, "vectors", "s" * 64)) == 1


async def test_sessions_of_others_keep_theirs(answers, made):
    await answers.keep(question(made, 0, principal="bob"), ANSWER, "s1", 60_000)
    assert await answers.erase(made.name(), "s1") == 0
    assert await answers.find(question(made, 0, principal="bob"))


def test_the_closest_come_first_and_exactly():
    texts = {b"a": "refund window abroad", b"b": "refund window", b"c": "opening hours"}
    found = closest(packed(hashed("refund window")), {one: packed(hashed(text)) for one, text in texts.items()})
    assert [one for _, one in found][:2] == ["b", "a"]
    assert found[0][0] == pytest.approx(1)
