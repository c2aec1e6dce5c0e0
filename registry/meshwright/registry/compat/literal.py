"""Values that stand in a schema: when two are the same, and which leaf keywords they fit. Pure."""

from collections.abc import Hashable
from typing import Any

from meshwright.registry.schema import Validator, compiled

NULL, BOOLEAN, INTEGER, FRACTION, STRING, ARRAY, OBJECT = EVERY_KIND = (
    "null",
    "boolean",
    "integer",
    "fraction",
    "string",
    "array",
    "object",
)
"""Kinds of values, none overlapping another: JSON Schema's `number` is INTEGER or FRACTION."""
EVERY = frozenset(EVERY_KIND)
NUMBERS = frozenset((INTEGER, FRACTION))


def frozen(value: Any) -> Hashable:
    """Returns a key that is equal for values that are equal in JSON: 1 is 1.0, but not true; members have no order."""
    if isinstance(value, bool | str) or value is None:
        return (type(value), value)
    if isinstance(value, list):
        return (list, tuple(map(frozen, value)))
    if isinstance(value, dict):
        return (dict, frozenset((name, frozen(member)) for name, member in value.items()))
    return (float, value)


def kind_of(value: Any) -> str:
    """Returns a value's kind."""
    match value:
        case None:
            return NULL
        case bool():
            return BOOLEAN
        case str():
            return STRING
        case list():
            return ARRAY
        case dict():
            return OBJECT
    return INTEGER if isinstance(value, int) or value.is_integer() else FRACTION


def kinds_named(names: str | list[str]) -> frozenset[str]:
    """Returns the kinds that a `type` keyword names."""
    listed = [names] if isinstance(names, str) else names
    return frozenset(kind for name in listed for kind in (NUMBERS if name == "number" else (name,)))


def kinds_said(kinds: frozenset[str]) -> str:
    """Writes kinds in the words of a `type` keyword."""
    if FRACTION in kinds:
        kinds = kinds - NUMBERS | {"number" if INTEGER in kinds else "number with a fraction"}
    return ", ".join(sorted(kinds))


class Leaves:
    """Keywords without schemas below them, asked of the very validator that checks calls."""

    def __init__(self) -> None:
        self._validators: dict[Hashable, Validator] = {}
        self._matches: dict[tuple[str, str], bool] = {}

    def fit(self, value: Any, keyword: str, limit: Any) -> bool:
        """Whether a value fits one keyword."""
        key = (keyword, frozen(limit))
        if key not in self._validators:
            self._validators[key] = compiled({keyword: limit})
        return self._validators[key].is_valid(value)

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a property's name matches a pattern."""
        key = (pattern, name)
        if key not in self._matches:
            self._matches[key] = self.fit(name, "pattern", pattern)
        return self._matches[key]
