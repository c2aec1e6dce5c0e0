"""Splitting text into sentences and words."""

import time

import pytest

from meshwright.agents.sentences import LONGEST_SENTENCE, sentences, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Valkey (e.g. version 9.1) is fast. See Fig. 3.", ["Valkey (e.g. version 9.1) is fast.", "See Fig. 3."]),
        ("Dr. J. Smith left. He is back.", ["Dr. J. Smith left.", "He is back."]),
        ("The answer is no. Next one.", ["The answer is no.", "Next one."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Wait... and go on. Done.", ["Wait... and go on.", "Done."]),
        (
            "Hosts are a.example.com and 10.0.0.1. Ports differ.",
            ["Hosts are a.example.com and 10.0.0.1.", "Ports differ."],
        ),
        ("一つ目。二つ目。", ["一つ目。", "二つ目。"]),
        ("First line\ngoes on. Second.", ["First line goes on.", "Second."]),
        ("One paragraph\n\nAnother one", ["One paragraph", "Another one"]),
        ("", []),
        ("\n---\n***\n...", []),
    ],
)
def test_plain_text_is_split_at_the_ends_of_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_markdown_is_read_as_a_person_reads_it() -> None:
    text = """# Heading
Intro with **bold** and a [link](http://a.b "title").

Underlined
==========

- first item
  goes on
* [x] second item. It has two sentences.
1. numbered

> quoted
> text

| name | port |
|------|-----:|
| edge | 8080 |
"""
    assert sentences(text) == [
        "Intro with bold and a link.",
        "first item goes on",
        "second item.",
        "It has two sentences.",
        "numbered",
        "quoted text",
        "name, port",
        "edge, 8080",
    ]


def test_a_few_lines_of_code_stay_with_the_sentence_that_announces_them() -> None:
    text = "Start it:\n\n```sh\npip install it\nit dev\n```\n\nDone."
    assert sentences(text) == ["Start it: `pip install it`, `it dev`", "Done."]


def test_other_code_is_left_out() -> None:
    code = "\n".join(f"x = {number}." for number in range(9))
    assert sentences(f"Before.\n```\n{code}\n```\nAfter.\n~~~\nopen end") == ["Before.", "After."]


def test_text_without_full_stops_is_cut_at_spaces() -> None:
    parts = sentences("word " * 500)
    assert all(len(part) <= LONGEST_SENTENCE for part in parts)
    assert " ".join(parts) == " ".join(["word"] * 500)
    assert sentences("x" * 1500) == ["x" * 600, "x" * 600, "x" * 300]


@pytest.mark.parametrize("unit", ["a", ". ", "- x\n", "|", "[a](", ">", '."', "* ", "```\n", "a:\n\n", "(", "** "])
def test_no_text_takes_long(unit: str) -> None:
    began = time.process_time()
    sentences(unit * (200_000 // len(unit)) + "x")
    assert time.process_time() - began < 2


def test_words_meet_in_their_stems_and_stop_words_are_gone() -> None:
    assert words("Stores are stored; storing the store's policies") == ["stor", "stor", "stor", "stor", "policy"]
    assert words("It is not what it was") == []
    assert words("Größe of docs_search 9.1") == ["größ", "doc", "search", "9", "1"]
