"""Answers that name their sources: written, and read back out of other agents' answers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from meshwright.agents.extract import Extract, Passage

MARK = "model: offline"
"""The last line of every answer of the offline model."""
NOTHING_FOUND = "Nothing was found"
"""How an answer without any finding begins."""

_MARK_LINE = re.compile(r"^[ \t]*model: offline[ \t]*$\n?", re.IGNORECASE | re.MULTILINE)
_SOURCES_LINE = re.compile(r"^[ \t*_#]*sources:?[ \t*_]*$", re.IGNORECASE)
_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\[?\d{1,3}[.)\]]:?)[ \t]+")
_CITATION = re.compile(r"\[([^\[\]\n]{1,200})\](?!\()")


@dataclass(frozen=True, slots=True)
class Cited:
    """An answer taken apart: its words without the list of sources, and the sources without repetitions."""

    body: str
    sources: tuple[str, ...]


def without_mark(text: str) -> str:
    """Removes the offline model's mark, so that an answer inside an answer does not show it twice."""
    return _MARK_LINE.sub("", text).strip()


def cited(text: str) -> Cited:
    """Takes an answer apart, whoever wrote it."""
    body: list[str] = []
    listed: list[str] = []
    is_list = False
    for line in without_mark(text).splitlines():
        if _SOURCES_LINE.match(line):
            is_list = True
        elif is_list and (not line.strip() or _ITEM.match(line)):
            listed += [source] if (source := _ITEM.sub("", line).strip()) else []
        else:
            is_list = False
            body.append(line)
    words = "\n".join(body).strip()
    return Cited(words, tuple(dict.fromkeys([*listed, *citations(words)])))


def citations(text: str) -> list[str]:
    """Lists what is cited in brackets; bare numbers and check boxes are no sources."""
    found = (match.group(1).strip() for match in _CITATION.finditer(text))
    return [source for source in found if _is_source(source)]


def with_sources(body: str, sources: Iterable[str]) -> str:
    """Writes an answer with its list of sources below, each one once."""
    listed = "\n".join(f"- {source}" for source in dict.fromkeys(sources))
    return f"{body}\n\nSources:\n{listed}" if listed else body


def bullets(extracts: Iterable[Extract]) -> str:
    """Writes sentences as a list, each with its source."""
    return "\n".join(f"- {extract.sentence} [{extract.source}]" for extract in extracts)


def quoted(extracts: Iterable[Extract]) -> str:
    """Writes sentences as an answer: the list, and their sources below it; empty without any."""
    listed = list(extracts)
    return with_sources(bullets(listed), [extract.source for extract in listed])


def passages_in(body: str, source: str) -> list[Passage]:
    """Sorts the words of an answer by what they cite.

    Args:
        body: An answer without its list of sources.
        source: What uncited words are ascribed to.
    """
    by_source: dict[str, list[str]] = {}
    for line in body.splitlines():
        start = 0
        line = _ITEM.sub("", line)  # noqa: PLW2901 - the mark of a list is no part of its words
        for match in _CITATION.finditer(line):
            if _is_source(match.group(1).strip()):
                _add(by_source, match.group(1).strip(), line[start : match.start()])
                start = match.end()
        _add(by_source, source, line[start:])
    return [Passage(name, "\n".join(lines)) for name, lines in by_source.items()]


def _add(by_source: dict[str, list[str]], source: str, words: str) -> None:
    words = words.strip().lstrip(".,;: ")
    if any(character.isalnum() for character in words):
        by_source.setdefault(source, []).append(words)


def _is_source(text: str) -> bool:
    return bool(text) and not text.isdecimal() and text not in "xX"
