"""Shortening: text by its beginning and its end, by its first sentence, or without what says nothing. Pure."""

import re

ELLIPSIS = " …"

_FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_INNER = re.compile(r"(?<=\S)[ \t]{2,}(?=\S)")
_EMPTY_LINES = re.compile(r"\n{3,}")
_COURTESY = re.compile(
    r"(?:(?:hi|hello|hey|thanks|thank you|please|kindly|(?:can|could|would|will) you|i would like you to|i want you to)"
    r"(?: there| again| please| kindly)?[ ,!.]+){1,4}",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?…](?=\s)|\n\s*\n")
_GAP_LINE = re.compile(r"^\[\.\.\. \d+ characters left out\b", re.MULTILINE)


def shortened(text: str, most: int, more: str = "") -> str:
    """Keeps beginning and end of text that is too long, and says how much is missing.

    Args:
        text: Any text.
        most: Characters of the result, the note included; where the note alone is longer, the result is.
        more: What the note adds, for example how to read the rest; `{offset}` in it becomes where the gap begins.
    """
    if len(text) <= most:
        return text
    room = max(0, most - len(_gap(len(text), len(text), more)))
    head = room * 2 // 3
    tail = room - head
    return text[:head] + _gap(len(text) - room, head, more) + (text[-tail:] if tail else "")


def is_shortened(text: str) -> bool:
    """Tells whether a line of the text is the note that `shortened` leaves."""
    return bool(_GAP_LINE.search(text))


def _gap(missing: int, offset: int, more: str) -> str:
    note = more.replace("{offset}", str(offset))
    return f"\n[... {missing} characters left out{note}]\n"


def squeezed(text: str) -> str:
    """Takes out what costs tokens and says nothing: white space outside of fenced code, and courtesies in front."""
    plain = text.strip()
    courtesy = _COURTESY.match(plain)
    parts = _FENCED.split(plain[courtesy.end() :] or plain if courtesy else plain)
    parts[::2] = (_EMPTY_LINES.sub("\n\n", _INNER.sub(" ", _without_trailing(part))) for part in parts[::2])
    return "".join(parts)


def _without_trailing(text: str) -> str:
    last = text.rpartition("\n")[2]
    lines = (line.rstrip() for line in text.split("\n")[:-1])
    return "\n".join([*lines, last])


def opening(text: str, most: int) -> str:
    """Returns the first sentence of a text on one line, at most so many characters of it."""
    start = text[: 4 * most].strip()
    end = _SENTENCE.search(start)
    line = " ".join((start[: end.end()] if end else start).split())
    return line if len(line) <= most else line[: max(0, most - len(ELLIPSIS))].rstrip() + ELLIPSIS
