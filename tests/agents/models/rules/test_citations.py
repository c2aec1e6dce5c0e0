"""Sources read out of answers and written under them."""

from meshwright.agents.extract import Passage
from meshwright.agents.models.rules.citations import cited, passages_in, with_sources, without_mark


def test_an_answer_is_taken_apart_into_words_and_sources() -> None:
    answer = cited("- One. [a.md]\n- Two. [b.md]\n\nSources:\n- a.md\n- b.md\n- c.md\n\nmodel: offline")
    assert answer.body == "- One. [a.md]\n- Two. [b.md]"
    assert answer.sources == ("a.md", "b.md", "c.md")


def test_an_answer_in_another_style_is_understood_too() -> None:
    answer = cited(
        "It is so [1], see [the docs](http://a.b) and [x.md].\n\n**Sources:**\n\n1. y.md\n[2] z.md\nThe end."
    )
    assert answer.body == "It is so [1], see [the docs](http://a.b) and [x.md].\n\nThe end."
    assert answer.sources == ("y.md", "z.md", "x.md")


def test_words_are_sorted_by_what_they_cite() -> None:
    body = "- One is one. [a.md]\n2. Two is two [b.md]. Three is three [a.md]\nAnd four."
    assert passages_in(body, "researcher") == [
        Passage("a.md", "One is one.\nThree is three"),
        Passage("b.md", "Two is two"),
        Passage("researcher", "And four."),
    ]


def test_sources_are_listed_once() -> None:
    assert with_sources("Yes.", ["a", "b", "a"]) == "Yes.\n\nSources:\n- a\n- b"
    assert with_sources("Yes.", []) == "Yes."


def test_the_mark_is_removed_wherever_it_stands_on_a_line() -> None:
    assert without_mark("One.\nmodel: offline\nThe model: offline\n  Model: Offline  ") == "One.\nThe model: offline"
