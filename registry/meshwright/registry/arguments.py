"""Arguments at the border: read from JSON text so that nothing is guessed, and held against their schema."""

import json
import math
from typing import Any

from meshwright.core.errors import InvalidRequestError
from meshwright.core.facts import FACT_BYTES, MESSAGE_BYTES, shortened
from meshwright.registry.hosted import Hosted
from meshwright.registry.schema import MAX_VALUE_DEPTH, explained

MAX_BYTES = 256 * 2**10
TOO_DEEP = f"goes deeper than {MAX_VALUE_DEPTH} levels"


def read_arguments(text: str) -> dict[str, Any]:
    """Reads arguments.

    Two readers of one text must not see two different calls: a repeated key, a number that is none in JSON and text
    that has no UTF-8 are refused.

    Raises:
        InvalidRequestError: Says what is wrong with the text.
    """
    if len(text) > MAX_BYTES:
        raise unreadable(f"at most {MAX_BYTES} bytes")
    try:
        if len(text.encode()) > MAX_BYTES:
            raise unreadable(f"at most {MAX_BYTES} bytes")
        arguments = READER.decode(text)
        if "\\u" in text:
            WRITER.encode(arguments).encode()  # an escape may have made half a pair
    except RecursionError:
        raise unreadable(TOO_DEEP) from None
    except UnicodeEncodeError:
        raise unreadable("holds half a surrogate pair") from None
    except ValueError as error:  # no JSON, or one of ours below
        raise unreadable(str(error)) from None
    if not isinstance(arguments, dict):
        raise unreadable("must be a JSON object")
    return arguments


def check_arguments(hosted: Hosted, arguments: dict[str, Any]) -> None:
    """Holds arguments against a tool's schema.

    Raises:
        InvalidRequestError: Lists every violation by JSON Pointer and keyword, short enough for a model.
    """
    violations = hosted.arguments.violations(arguments)
    if not violations:
        return
    problems: dict[str, str] = {}
    for violation in violations:
        place = f"arguments{shortened(violation.pointer, FACT_BYTES)}"
        told = f"{violation.keyword}: {violation.message}" if violation.keyword else violation.message
        problems[place] = f"{problems[place]}; {told}" if place in problems else told
    message = shortened(f"arguments of {hosted.tool.name}: {explained(violations)}", MESSAGE_BYTES)
    raise InvalidRequestError(message, fields=problems)


def unreadable(told: str) -> InvalidRequestError:
    """Builds the error for a text that is not read."""
    return InvalidRequestError(f"arguments cannot be read: {told}", fields={"arguments": told})


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of its members.

    Raises:
        ValueError: Two have the same name.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the key {shortened(json.dumps(twice), FACT_BYTES)} twice in one object")
    return members


def finite(text: str) -> float:
    """Reads a number with a fraction or an exponent.

    Raises:
        ValueError: No double can hold it.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shortened(text, FACT_BYTES)} is larger than any number can be")
    return number


def refuse_constant(name: str) -> Any:
    """Stands where Python would read NaN and Infinity.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is no number of JSON")


WRITER = json.JSONEncoder(ensure_ascii=False)
READER = json.JSONDecoder(object_pairs_hook=unique, parse_float=finite, parse_constant=refuse_constant)
