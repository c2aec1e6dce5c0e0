"""Likeness: questions that turn on another word are not the same question, however similar they are."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshwright.agents.likeness import is_alike, marks
from meshwright.agents.sentences import words

QUESTION = "what does the handbook say about the notice period of tenants in old buildings"
WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=12)


def compares(one, other):
    return marks(one) == marks(other) and is_alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("revenue of 2023", "revenue of 2024"),
        ("revenue of \uff12\uff10\uff12\uff13", "revenue of 2024"),
        ("order 12-345 of ann", "order 12-346 of ann"),
        ("is the pump safe", "is the pump not safe"),
        ("may I open it", "mayn't I open it"),
        ("is the pump safe", "isn't the pump safe"),
        ('what does "alpha" mean', 'what does "beta" mean'),
        ("what does 'get up' mean", "what does 'up get' mean"),
        ("sales in march", "sales in april"),
        ("meet on monday", "meet on tuesday"),
        ("how much does Alice owe", "how much does Bob owe"),
        ("Alice pays Bob", "Bob pays Alice"),
        ("does the tenant pay the landlord", "does the landlord pay the tenant"),
        ("flights from rome to oslo", "flights to rome from oslo"),
        ("raise it by -5", "raise it by 5"),
        ("is 3 < 5", "is 3 > 5"),
        ("temperature above zero", "temperature below zero"),
        ("mail ann@example.org", "mail bob@example.org"),
        ("with all rights", "without all rights"),
        ("price in $", "price in €"),
        ("is the report due today", "is the report due tomorrow"),
        ("is aspirin safe for dogs", "is ibuprofen safe for dogs"),
        ("the notice period", "the notice period abroad"),
        ("中国的首都", "日本的首都"),
        ("ist das erlaubt", "ist das nicht erlaubt"),
        ("when was it founded", "where was it founded"),
        ("one ticket", "two tickets"),
    ],
)
def test_what_turns_a_question_round_keeps_them_apart(one, other):
    assert not compares(one, other)
    assert not compares(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the refund window?", "what's the refund window"),
        ("Tell me what the notice period is, please.", "please tell me what the notice period is"),
        ("what is the warranty of pump P-12?", "What's the warranty of the pump P-12"),
        ("what helps against rust on garden tools", "remedies against corroded spades"),
    ],
)
def test_another_way_to_put_it_is_compared(one, other):
    assert compares(one, other)


@given(st.text(max_size=300))
def test_a_question_is_always_like_itself(text):
    assert compares(text, text)


@given(st.integers(0, 12), WORDS)
def test_no_single_word_may_be_replaced(place, word):
    every = QUESTION.split()
    other = " ".join([*every[:place], word, *every[place + 1 :]])
    assume(sorted(words(other)) != sorted(words(QUESTION)))
    assert not compares(QUESTION, other)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_are_equal_or_nothing_is(one, other):
    assert compares(f"order {one} of the customer", f"the order {other} of the customer") == (one == other)
