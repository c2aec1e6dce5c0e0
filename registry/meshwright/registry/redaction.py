"""Redaction: what a contract's `redact` points at is taken out of results. Pure."""

from collections.abc import Iterable
from typing import Any

from meshwright.core.errors import InvalidRequestError

REDACTED = "[redacted]"
EVERY = "-"
"""Stands for every item of an array: JSON Pointer lets it name none that exists."""
MAX_POINTERS = 64


class Redaction:
    """Puts `"[redacted]"` in the place of values.

    Args:
        pointers: JSON Pointers into the result; the segment `-` means every item of an array.
        field: How errors name them.

    Raises:
        InvalidRequestError: One is no JSON Pointer, or there are too many.
    """

    def __init__(self, pointers: Iterable[str], field: str = "tool.redact") -> None:
        found = list(pointers)
        wrong = [pointer for pointer in found if pointer and not pointer.startswith("/")]
        if wrong or len(found) > MAX_POINTERS:
            forms = f'at most {MAX_POINTERS} JSON Pointers: "/card/number", "/items/-/secret"'
            raise InvalidRequestError(f"redact cannot be read: {(wrong or found)[0]!r}", fields={field: forms})
        self._paths = [[unescaped(part) for part in pointer.split("/")[1:]] for pointer in found]

    def __bool__(self) -> bool:
        """Whether anything is to be taken out."""
        return bool(self._paths)

    def applied(self, value: Any) -> Any:
        """Returns a JSON value without what is pointed at; the value itself is left as it is."""
        for path in self._paths:
            value = without(value, path)
        return value


def without(value: Any, path: list[str]) -> Any:
    """Returns a value with what a path leads to redacted; a path that leads nowhere changes nothing."""
    if not path:
        return REDACTED
    name, *rest = path
    if isinstance(value, dict) and name in value:
        return value | {name: without(value[name], rest)}
    if isinstance(value, list):
        return [without(one, rest) if name in (EVERY, str(index)) else one for index, one in enumerate(value)]
    return value


def unescaped(segment: str) -> str:
    """Reads a JSON Pointer segment (RFC 6901)."""
    return segment.replace("~1", "/").replace("~0", "~")
