"""The brief for a person: what was asked, done, said and is open; bounded, and nothing made up."""

import json

from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.brief import MOST_CHARS, brief
from meshwright.agents.models.model import Call, Message

FAILED = json.dumps({"error": {"reason": "NOT_FOUND", "message": "no such order"}})


def called(call_id, tool, outcome):
    return [Message("assistant", "", (Call(call_id, tool, {}),)), Message("tool", outcome, call_id=call_id)]


def test_it_says_what_was_asked_done_said_and_is_open():
    messages = [
        *called("a", "docs.search", "[1]"),
        *called("b", "docs.search", "[2]"),
        *called("c", "orders.get", FAILED),
    ]
    messages[4] = Message("assistant", "I look up the order.", messages[4].calls)
    assert brief("Where is order 17?", messages, "how to go on?").splitlines() == [
        "Asked: Where is order 17?",
        "Done: docs.search ok x2, orders.get failed (NOT_FOUND)",
        "Said: I look up the order.",
        "Open: how to go on?",
    ]


def test_of_a_long_prompt_it_quotes_sentences():
    sentences = [f"Item {number} of the order was delivered to the house on day {number}." for number in range(200)]
    sentences[100] = "The refund for the broken refund machine of the refund order is missing."
    first = brief(" ".join(sentences), [], "x").splitlines()[0].removeprefix("Asked: ")
    assert len(first) <= 700
    assert all(part.removesuffix(" …") in " ".join(sentences) for part in first.split(" … "))


def test_before_anything_was_done_it_says_so():
    assert brief("Go.", [], "may it?") == "Asked: Go.\nDone: nothing yet\nOpen: may it?"


@given(st.text(max_size=5_000), st.lists(st.text(max_size=500), max_size=30), st.text(max_size=1_000))
def test_it_is_bounded_and_no_quoted_text_begins_a_line(prompt, outcomes, still_open):
    messages = [one for place, text in enumerate(outcomes) for one in called(f"c{place}", f"tool.t{place}", text)]
    text = brief(prompt, messages, still_open)
    assert len(text) <= MOST_CHARS
    assert [line.split(": ")[0] for line in text.split("\n")] in (
        ["Asked", "Done", "Open"],
        ["Done", "Open"],
        ["Asked", "Done"],
        ["Done"],
    )
