import random
import time

from meshwright.agents.library.researcher.markup import Block, plain
from meshwright.agents.library.researcher.passages import LONGEST, LONGEST_HEADING, SHORTEST, Piece, passages


def prose(characters: int) -> str:
    words = random.Random(7)
    text = ""
    while len(text) < characters:
        text += "".join(words.choices("abcdefgh", k=words.randint(1, 9))) + words.choice([" ", " ", " ", ". ", "\n"])
    return text


def test_titles_are_the_nearest_headings() -> None:
    blocks = [
        Block(0, "start"), Block(1, "A"), Block(2, "B"), Block(0, "b"), Block(3, "C"), Block(0, "c"), Block(2, "D"),
        Block(0, "d"), Block(1, "E"), Block(0, "e"),
    ]  # fmt: skip
    assert list(passages(blocks, "file")) == [
        Piece("file", "start"), Piece("A > B", "b"), Piece("A > B > C", "c"), Piece("A > D", "d"), Piece("E", "e"),
    ]  # fmt: skip


def test_a_missing_highest_heading_is_replaced_by_the_name() -> None:
    assert list(passages([Block(2, "Page 3"), Block(0, "text")], "manual")) == [Piece("manual > Page 3", "text")]


def test_a_heading_with_nothing_below_it_stands_for_itself() -> None:
    blocks = [Block(1, "Changes"), Block(2, "Version 1"), Block(2, "Version 2"), Block(1, "End")]
    assert [text for _, text in passages(blocks, "x")] == ["Version 1", "Version 2", "End"]


def test_sections_with_the_same_title_stay_apart() -> None:
    blocks = [Block(1, "A"), Block(0, "one"), Block(1, "A"), Block(0, "two")]
    assert list(passages(blocks, "x")) == [Piece("A", "one"), Piece("A", "two")]


def test_short_paragraphs_are_joined_and_long_ones_cut() -> None:
    for text in (prose(50_000), "\n\n".join(prose(size) for size in range(1, 2_000, 37)), "x" * 50_000, "字。" * 9_000):
        pieces = [piece.text for piece in passages(plain(text), "x")]
        assert all(len(piece) <= LONGEST for piece in pieces)
        assert all(len(piece) >= SHORTEST for piece in pieces[:-1])
        assert "".join("".join(pieces).split()) == "".join(text.split())


def test_long_paragraphs_are_cut_where_a_sentence_ends() -> None:
    text = "This sentence is of middling length, and it is repeated. " * 100
    assert all(piece.text.endswith("repeated.") for piece in passages([Block(0, text)], "x"))


def test_code_keeps_its_indentation() -> None:
    assert list(passages([Block(0, "def f():\n    return 1\n")], "x")) == [Piece("x", "def f():\n    return 1")]


def test_long_headings_keep_their_nearest_part() -> None:
    blocks = [Block(level, f"{level}" * 200) for level in range(1, 7)]
    [piece] = passages([*blocks, Block(0, "text")], "x")
    assert len(piece.title) == LONGEST_HEADING
    assert piece.title.endswith("6" * 200)


def test_characters_that_are_no_text_become_spaces() -> None:
    assert list(passages([Block(1, "A\x1b\nB"), Block(0, "a\x00b\ud800c\td")], "x")) == [Piece("A B", "a b c\td")]


def test_millions_of_characters_are_cut_in_seconds() -> None:
    start = time.monotonic()
    for text in ("x" * 2_000_000, " " * 2_000_000, "a\n\n" * 500_000):
        sum(1 for _ in passages(plain(text), "x"))
    assert time.monotonic() - start < 60  # seconds; by the square it would be hours
