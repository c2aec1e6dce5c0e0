"""Headings and paragraphs cut into passages of a size that suits a search hit."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from meshwright.agents.library.researcher.markup import Block

LONGEST = 1_200
"""Characters of a passage."""
SHORTEST = 300
"""Characters that a passage reaches, unless its section ends or its neighbour is full."""
LONGEST_HEADING = 300
"""Characters of the headings over a passage; the nearest ones are kept."""

_GAP = "\n\n"
_AIM = LONGEST - SHORTEST - len(_GAP)  # so that a short end always fits behind a passage of this size
_BREAKS = ("\n\n", ". ", "。", "\n", " ")
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # steers terminals, or is no Unicode text


class Piece(NamedTuple):
    """One passage: its headings, joined by ' > ', and its text."""

    title: str
    text: str


class _Part(NamedTuple):
    section: int
    title: str
    text: str


def passages(blocks: Iterable[Block], name: str) -> Iterator[Piece]:
    """Cuts a document into passages; none spans two headings.

    Args:
        blocks: The document in reading order; it is consumed lazily.
        name: Stands in for the highest heading where there is none.

    Returns:
        Passages in reading order: text of 1 to `LONGEST` characters.
    """
    for (_, title), parts in groupby(_parts(blocks, name), key=lambda part: part[:2]):
        for text in _packed(fragment for part in parts for fragment in _fragments(part.text)):
            yield Piece(title, text)


def _parts(blocks: Iterable[Block], name: str) -> Iterator[_Part]:
    """Puts the headings above it to each text; a heading with nothing below it stands for itself."""
    path: list[Block] = []
    is_bare = False
    section = 0
    for level, raw in blocks:
        text = _UNFIT.sub(" ", raw)
        if not level:
            yield _Part(section, _title(path, name), text)
            is_bare = False
            continue
        if is_bare and level <= path[-1].level:
            yield _Part(section, _title(path, name), path[-1].text)
        while path and path[-1].level >= level:
            path.pop()
        path.append(Block(level, " ".join(text.split())))
        is_bare = True
        section += 1
    if is_bare:
        yield _Part(section, _title(path, name), path[-1].text)


def _title(path: list[Block], name: str) -> str:
    """Joins headings; a document whose highest heading is missing is called by its name."""
    names = [] if path and path[0].level == 1 else [name]
    title = " > ".join([*names, *(heading.text for heading in path if heading.text)])
    return title if len(title) <= LONGEST_HEADING else "…" + title[1 - LONGEST_HEADING :]


def _packed(fragments: Iterator[str]) -> Iterator[str]:
    """Joins short fragments to passages, and a short end to the passage before it."""
    full = current = ""
    for fragment in fragments:
        if len(current) >= SHORTEST and len(current) + len(_GAP) + len(fragment) > _AIM:
            if full:
                yield full
            full, current = current, fragment
        else:
            current = f"{current}{_GAP}{fragment}" if current else fragment
    if full and len(current) < SHORTEST and len(full) + len(_GAP) + len(current) <= LONGEST:
        full, current = f"{full}{_GAP}{current}", ""
    yield from (text for text in (full, current) if text)


def _fragments(text: str) -> Iterator[str]:
    """Cuts a long paragraph where reading pauses: at a sentence, a line, a space, or, without any, anywhere."""
    text = text.strip("\n").rstrip()
    start = 0
    while start < len(text):
        end = len(text) if len(text) - start <= _AIM else _break(text, start)
        if fragment := text[start:end].strip("\n").rstrip():
            yield fragment
        start = end


def _break(text: str, start: int) -> int:
    for mark in _BREAKS:
        place = text.rfind(mark, start + SHORTEST, start + _AIM)
        if place >= 0:
            return place + len(mark)
    return start + _AIM
