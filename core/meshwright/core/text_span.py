"""Pieces of a text that are taken out. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A piece of a text, and what it is.

    Attributes:
        start: Its first character.
        end: The one after its last.
        kind: One or two words for people.
    """

    start: int
    end: int
    kind: str


def without(text: str, spans: Iterable[Span]) -> str:
    """Returns a text with `[redacted KIND]` in the place of pieces; where some overlap, the first one names them."""
    parts: list[str] = []
    done = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= done:
            parts += [text[done : span.start], f"[redacted {span.kind}]"]
        done = max(done, span.end)
    return "".join([*parts, text[done:]])


def said(spans: Iterable[Span]) -> str:
    """Says what was found, and nothing of it."""
    counts = Counter(span.kind for span in set(spans))
    return "found " + ", ".join(f"{count} of kind {kind}" for kind, count in sorted(counts.items()))
