"""Looking for pieces of a text in the form in which a reader, or a model, takes it in. Pure."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from meshwright.agents.guardrails.normalise import MAX_LAYERS, UNSEEN, encoded
from meshwright.core.text_span import Span

Find = Callable[[str], Iterable[Span]]
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_WIDER_BY = 0xFEE0
_MINUS = "\u2212"


def look(text: str, find: Find, layers: int = MAX_LAYERS) -> list[Span]:
    """Finds pieces of a text, whatever script its digits and marks are of and whatever without width stands in between.

    What is encoded is looked at too: where something is in it, all of what is encoded is the piece.

    Args:
        text: Where to look; the time is linear in its length.
        find: Finds pieces in plain text.
        layers: How often what was decoded is decoded again.

    Returns:
        Pieces of the text as it was given.
    """
    found = list(find(text) if text.isascii() else _found_in_plain(text, find))
    if layers:
        for start, end, hidden in encoded(text):
            kinds = {span.kind for span in look(hidden, find, layers - 1)}
            found += [Span(start, end, kind) for kind in sorted(kinds)]
    return found


def _found_in_plain(text: str, find: Find) -> Iterator[Span]:
    table = {ord(char): plain for char in set(text) if not char.isascii() and (plain := plain_character(char))}
    written = text.translate(table)  # as long as the text
    cuts = [match.span() for match in UNSEEN.finditer(written)]
    if not cuts:
        yield from find(written)
        return
    at, begins, given = 0, [0], [0]
    for start, end in cuts:  # where each piece that is left begins: in what is left, and in the text
        at += start - given[-1]
        begins.append(at)
        given.append(end)
    for span in find(UNSEEN.sub("", written)):
        first, last = bisect_right(begins, span.start) - 1, bisect_right(begins, span.end - 1) - 1
        start = given[first] + span.start - begins[first]
        yield Span(start, given[last] + span.end - begins[last], span.kind)


def plain_character(char: str) -> str:
    """Returns what forms call a character: an ASCII digit, mark or blank; empty: the character itself."""
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if ord(char) in _FULL_WIDTH:
        return chr(ord(char) - _WIDER_BY)
    if char.isspace():
        return " "
    return "-" if char == _MINUS or unicodedata.category(char) == "Pd" else ""
