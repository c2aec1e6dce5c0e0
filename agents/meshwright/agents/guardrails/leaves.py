"""JSON as one text that rules can read, and back. Pure."""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

NAME_END, END = "\x1f", "\x1e"
"""Between a name and its value, and after each value: white space to every pattern, and absent from the text itself."""
_CLEAN = {ord(NAME_END): " ", ord(END): " "}
WITHHELD = "[redacted]"


class Piece(NamedTuple):
    """A name and its text, as they were and as they are now."""

    name: str
    text: str
    new_name: str
    new_text: str

    def renamed(self, key: str) -> str:
        """Returns a key as it is now."""
        return key if self.new_name == clean(self.name) else self.new_name


def laid_out(value: Any) -> str:
    """Writes names and values one after the other, each value after its name; a text as it is."""
    if isinstance(value, str):
        return value
    return END.join(f"{clean(name)}{NAME_END}{clean(text)}" for name, text in _entries(value, ""))


def put_back(value: Any, text: str) -> Any:
    """Returns a value with what a rule has changed in its text.

    Args:
        value: What `laid_out` wrote.
        text: What became of it; where it cannot be told apart any more, every text of the value is withheld.
    """
    if isinstance(value, str):
        return text
    entries = list(_entries(value, ""))
    pieces = [piece.split(NAME_END) for piece in text.split(END)]
    if len(pieces) != len(entries) or any(len(piece) != 2 for piece in pieces):  # noqa: PLR2004 - name and value
        pieces = [[clean(name), WITHHELD if said else ""] for name, said in entries]
    return _rebuilt(value, deque(Piece(*old, *new) for old, new in zip(entries, pieces, strict=True)))


def clean(text: str) -> str:
    """Returns a text without the two marks."""
    return text.translate(_CLEAN) if NAME_END in text or END in text else text


def _entries(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yields name and text of everything, containers with an empty text, in reading order."""
    if isinstance(value, dict):
        yield name, ""
        for key, item in value.items():
            yield from _entries(item, key)
    elif isinstance(value, list):
        yield name, ""
        for item in value:
            yield from _entries(item, name)
    else:
        yield name, "" if value is None or isinstance(value, bool) else _spelled(value)


def _spelled(value: Any) -> str:
    """Writes a text or a number; a whole number has no fraction, whatever type it travelled in."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _rebuilt(value: Any, pieces: deque[Piece]) -> Any:
    piece = pieces.popleft()
    if isinstance(value, dict):
        return {pieces[0].renamed(key): _rebuilt(item, pieces) for key, item in value.items()}
    if isinstance(value, list):
        return [_rebuilt(item, pieces) for item in value]
    return value if piece.new_text == clean(piece.text) else piece.new_text
