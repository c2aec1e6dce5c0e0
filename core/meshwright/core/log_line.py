"""A log line: one JSON object of fields that are listed, without secrets, of bounded length."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from meshwright.core.facts import shortened
from meshwright.core.log_fields import FACTS, FIELDS, ORIGIN
from meshwright.core.redaction import may_hold_secrets, redacted

Clean = Callable[[str], str]
FIELD_BYTES = 1_024
TRACEBACK_CHARS = 8_192
LINE_CHARS = 16_384
"""Of a whole line, which is ASCII."""
MOST_ITEMS = 32
"""Of a list, or of a table."""
MOST_DEPTH = 3
LOOKED_AT = 65_536
"""Characters of one text that are searched for secrets; what lies beyond is dropped before."""
TIGHT = (256, 48)
"""Bytes that a text is cut to where the line is too long, the kinder one first."""
INTEGERS = range(-(2**63), 2**64)
CUT = "..."
OWN = frozenset({"timestamp", "level", "trace_id", "span_id"})
"""Written by ourselves, of a form that holds no secret."""


def line_of(event: Mapping[str, Any]) -> str:
    """Writes an event as one line of ASCII, without its end.

    A field that is not in `FIELDS` is left out, and named in `unlisted`.

    Args:
        event: Names of fields and JSON data; in place of anything else stands the name of its type.
    """
    clean = redacted if may_hold_secrets(texts_in(event.values(), MOST_DEPTH)) else unchanged
    told = {name: told_of(name, event[name], clean) for name in ORIGIN if name in event}
    told |= {name: told_of(name, event[name], clean) for name in event if name in FACTS}
    if strangers := [str(name) for name in event if name not in FIELDS]:
        told["unlisted"] = told_of("unlisted", strangers, redacted)
    return fitting(told)


def texts_in(values: Iterable[Any], depth: int) -> Iterator[str]:
    """Finds every text in values, as far as `plain` writes them."""
    for value in values:
        if isinstance(value, str):
            yield value if len(value) <= LOOKED_AT else value[:LOOKED_AT] + "\n" + value[-LOOKED_AT:]
        elif depth and isinstance(value, dict):
            yield from map(str, islice(value, MOST_ITEMS))
            yield from texts_in(islice(value.values(), MOST_ITEMS), depth - 1)
        elif depth and isinstance(value, list | tuple | set | frozenset):
            yield from texts_in(islice(value, MOST_ITEMS), depth - 1)


def unchanged(text: str) -> str:
    """Returns a text that holds no secret."""
    return text


def told_of(name: str, value: Any, clean: Clean) -> Any:
    """Returns the value of a field as it is written."""
    if name in OWN:
        return value
    if name == "exception" and isinstance(value, str):
        text = clean(value[-LOOKED_AT:])
        return text if len(text) <= TRACEBACK_CHARS else CUT + text[-TRACEBACK_CHARS:]
    return plain(value, MOST_DEPTH, clean)


def plain(value: Any, depth: int, clean: Clean) -> Any:
    """Returns JSON data without secrets and within bounds.

    Args:
        value: Anything; of what JSON does not have, the name of the type is told.
        depth: How many levels of lists and tables it may have.
        clean: Takes secrets out of a text.
    """
    match value:
        case str():
            return shortened(clean(value[:LOOKED_AT]), FIELD_BYTES)
        case None | bool():
            return value
        case int() | float():
            return number(value)
        case list() | tuple() | set() | frozenset() if depth:
            return [plain(one, depth - 1, clean) for one in islice(value, MOST_ITEMS)]
        case dict() if depth:
            some = islice(value.items(), MOST_ITEMS)
            return {plain(str(name), 0, clean): plain(one, depth - 1, clean) for name, one in some}
        case _:
            return f"({type(value).__name__})"


def number(value: float) -> Any:
    """Returns a number as JSON has it, or what stands for one that it has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return int(value) if value in INTEGERS else "(beyond 64 bits)"


def fitting(told: dict[str, Any]) -> str:
    """Writes fields as JSON; where that is too long texts are cut, and at last only `ORIGIN` is left."""
    line = json.dumps(told)
    for most in TIGHT:
        if len(line) <= LINE_CHARS:
            return line
        told = {name: cut(value, most) for name, value in told.items()}
        line = json.dumps(told)
    return line if len(line) <= LINE_CHARS else json.dumps({name: told[name] for name in ORIGIN if name in told})


def cut(value: Any, most: int) -> Any:
    """Cuts a text, or what a list or a table is written as; a number stays."""
    if isinstance(value, int | float | None):
        return value
    return shortened(value if isinstance(value, str) else json.dumps(value), most)
