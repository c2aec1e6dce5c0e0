import time
from collections.abc import Callable, Iterable

import pytest

from meshwright.agents.library.researcher.markup import Block, markdown, plain, restructured_text

Reader = Callable[[str], Iterable[Block]]


def text(*lines: str) -> Block:
    return Block(0, "\n".join(lines))


def test_plain_text_falls_into_paragraphs() -> None:
    assert list(plain("\n# one\ntwo\n\n \n  three\n")) == [text("# one", "two"), text("  three")]


def test_markdown_headings_of_both_notations_are_found() -> None:
    source = "Intro\n# One\nbody\n## Two ##\n\nMain\n====\nSub\n---\n###### Six\n####### seven\n#hash\n# C#\n"
    assert list(markdown(source)) == [
        text("Intro"), Block(1, "One"), text("body"), Block(2, "Two"), Block(1, "Main"), Block(2, "Sub"),
        Block(6, "Six"), text("####### seven", "#hash"), Block(1, "C#"),
    ]  # fmt: skip


def test_markdown_titles_lose_links_anchors_and_code_marks() -> None:
    assert list(markdown("# Use [`mesh`](https://x.test/a) ![logo](l.png) now {#use}\n")) == [
        Block(1, "Use mesh logo now")
    ]


def test_code_fences_are_one_piece_and_hold_no_headings() -> None:
    source = "Run:\n```sh\n# not a heading\n\n~~~\nmake\n```\n# Heading\n````\n```\n# no\n````\nafter\n"
    assert list(markdown(source)) == [
        text("Run:"), text("```sh", "# not a heading", "", "~~~", "make", "```"), Block(1, "Heading"),
        text("````", "```", "# no", "````"), text("after"),
    ]  # fmt: skip


def test_an_open_fence_ends_with_the_file() -> None:
    assert list(markdown("```\n# no\n\ncode\n")) == [text("```", "# no", "", "code")]


@pytest.mark.parametrize("rule", ["---", "+++"])
def test_front_matter_is_left_out(rule: str) -> None:
    key = "title: x" if rule == "---" else "title = 'x'"
    assert list(markdown(f"{rule}\n{key}\ntags: []\n{rule}\n# One\n")) == [Block(1, "One")]


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert list(markdown("---\n\n# One\n\n---\nbody\n")) == [text("---"), Block(1, "One"), text("---", "body")]


def test_rst_levels_follow_the_order_of_first_use() -> None:
    source = (
        "=====\nTitle\n=====\n\nIntro\n\nPart\n====\n\n.. note:: kept\n\n"
        "Section\n-------\nbody\n\nPart `two`\n==========\n\n----\n"
    )
    assert list(restructured_text(source)) == [
        Block(1, "Title"), text("Intro"), Block(2, "Part"), text(".. note:: kept"), Block(3, "Section"), text("body"),
        Block(2, "Part two"),
    ]  # fmt: skip


def test_rst_rules_too_short_or_inside_text_make_no_heading() -> None:
    source = "A long title\n---\n\nOne\ntwo\n===\n\n  indented\n==========\n"
    assert all(block.level == 0 for block in restructured_text(source))


@pytest.mark.parametrize("read", [plain, markdown, restructured_text])
@pytest.mark.parametrize(
    "source",
    [
        "# " + " " * 1_000_000 + "x",
        "#" * 1_000_000,
        "# " + "[" * 1_000_000,
        "---\na:" + "\n--- x" * 200_000,
        "---\n" + "a" * 1_000_000,
        "`" * 1_000_000,
        "```\n" * 200_001,
        "=\n" * 500_000,
        "===\n" * 250_000,
        "a\n" * 500_000,
        "- " * 500_000,
    ],
    ids=range(11),
)
def test_hostile_text_is_read_in_linear_time_and_small_pieces(read: Reader, source: str) -> None:
    start = time.process_time()
    blocks = list(read(source))
    assert time.process_time() - start < 10
    longest = 65_536 + max(len(line) for line in source.split("\n"))
    assert all(len(block.text) <= longest for block in blocks)
