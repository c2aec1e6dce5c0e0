"""Plain text, Markdown and reStructuredText as headings and paragraphs."""

import re
from collections.abc import Iterator
from io import StringIO
from typing import NamedTuple

LONGEST_TITLE = 200
"""Characters; a longer heading is read as text."""

_LONGEST_BLOCK = 65_536
_FRONT_MATTER = re.compile(
    r"\A(---|\+\+\+)[ \t]*\n(?=[\w.-]+[ \t]*[:=]).*?^\1[ \t]*$", re.ASCII | re.DOTALL | re.MULTILINE
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HASHES = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ANCHOR = re.compile(r"[ \t]*\{#[^}]*\}$")


class Block(NamedTuple):
    """A heading of level 1 (highest) and up, or with level 0 a piece of text."""

    level: int
    text: str


class _Paragraph:
    """The lines read since the last block."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> Iterator[Block]:
        """Adds a line; yields when it is time to, since a hostile file may consist of one paragraph."""
        self.lines.append(line)
        self._size += len(line) + 1
        if self._size > _LONGEST_BLOCK:
            yield from self.take()

    def take(self) -> Iterator[Block]:
        """Yields what was read, and starts anew."""
        text = "\n".join(self.lines).strip("\n")
        self.lines, self._size = [], 0
        if text.strip():
            yield Block(0, text)


def plain(text: str) -> Iterator[Block]:
    """Reads plain text: paragraphs are set apart by blank lines.

    Args:
        text: Any text, lines ended by line feeds only.
    """
    paragraph = _Paragraph()
    for line in _lines(text):
        yield from paragraph.add(line) if line.strip() else paragraph.take()
    yield from paragraph.take()


def markdown(text: str) -> Iterator[Block]:
    """Reads Markdown: headings of both notations, code fences as one piece each; front matter is left out.

    Args:
        text: Any text, lines ended by line feeds only.
    """
    paragraph = _Paragraph()
    fence = ""
    for line in _lines(_FRONT_MATTER.sub("", text, count=1)):
        marker = _FENCE.match(line)
        if fence:
            yield from paragraph.add(line)
            if marker and marker[1].startswith(fence) and not line[marker.end() :].strip():
                fence = ""
                yield from paragraph.take()
        elif marker and not (marker[1][0] == "`" and "`" in line[marker.end() :]):
            fence = marker[1]
            yield from paragraph.take()
            yield from paragraph.add(line)
        elif heading := _markdown_heading(line, paragraph.lines):
            if not _HASHES.match(line):  # underlined: the line before it is the title
                paragraph.lines.clear()
            yield from paragraph.take()
            yield heading
        else:
            yield from paragraph.add(line) if line.strip() else paragraph.take()
    yield from paragraph.take()


def restructured_text(text: str) -> Iterator[Block]:
    """Reads reStructuredText: underlined and overlined headings; the order of their first use gives their levels.

    Args:
        text: Any text, lines ended by line feeds only.
    """
    paragraph = _Paragraph()
    styles: list[tuple[str, bool]] = []
    for line in _lines(text):
        rule = line.rstrip()
        is_rule = bool(_RULE.fullmatch(rule))
        title = paragraph.lines[-1] if is_rule and paragraph.lines else ""
        is_overlined = len(paragraph.lines) == 2 and paragraph.lines[0].rstrip() == rule  # noqa: PLR2004 - rule and title
        is_underlined = len(paragraph.lines) == 1 and not title.startswith((" ", "\t"))
        if title and (is_overlined or is_underlined) and len(title.rstrip()) <= min(len(rule), LONGEST_TITLE):
            style = (rule[0], is_overlined)
            styles += [] if style in styles else [style]
            paragraph.lines = []
            yield Block(styles.index(style) + 1, title.replace("`", "").strip())
        elif line.strip():
            yield from paragraph.add(line)
        else:
            yield from _without_transition(paragraph)
    yield from _without_transition(paragraph)


def _lines(text: str) -> Iterator[str]:
    """Yields lines one by one: a list of them may need fifty times the memory of the text."""
    return (line.rstrip("\n") for line in StringIO(text))


def _markdown_heading(line: str, before: list[str]) -> Block | None:
    """Finds the heading that a line is, or makes of the one line before it."""
    if hashes := _HASHES.match(line):
        title = line[hashes.end() :].strip()
        bare = title.rstrip("#")
        title = bare.rstrip() if not bare or bare[-1] in " \t" else title
        level = len(hashes[1])
    elif len(before) == 1 and (underline := _UNDERLINE.fullmatch(line)):
        title = before[0].strip()
        level = 1 if underline[1][0] == "=" else 2
    else:
        return None
    if not title or len(title) > LONGEST_TITLE:
        return None
    return Block(level, _ANCHOR.sub("", _LINK.sub(r"\1", title)).replace("`", ""))


def _without_transition(paragraph: _Paragraph) -> Iterator[Block]:
    """Takes a paragraph; a rule that stands alone is no text."""
    if len(paragraph.lines) == 1 and _RULE.fullmatch(paragraph.lines[0].rstrip()):
        paragraph.lines = []
    yield from paragraph.take()
