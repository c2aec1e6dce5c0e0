"""JSON Schema 2020-12 for tools: compiled once, safe against hostile schemas and patterns. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from meshwright.core.canonical import escaped
from meshwright.core.errors import InvalidRequestError
from meshwright.core.pattern import ENGINE
from meshwright.registry.effort import efforts

MAX_BYTES = 64 * 2**10
MAX_DEPTH = 32
MAX_NODES = 2_000
MAX_VIOLATIONS = 10
MAX_MESSAGE = 200
MAX_PATTERN = 1_000
MAX_PATTERNS = 64
MAX_VALUE_DEPTH = 24
"""Levels of a value; as many as a Struct can carry inside of a few other messages."""
MAX_EFFORT = 10_000
"""How often parts of a schema may be applied to one and the same value."""
LISTED_EFFORT = 10_000
CHECKED_EFFORT = 20_000_000
"""Up to how many applications violations are listed, and a value is checked at all: about 0.2 s each."""
LISTED_BYTES = 10 * 2**20
"""Each violation is made with a copy of the value that it is about: so much may be copied."""
DIALECT = "https://json-schema.org/draft/2020-12/"
CONTAINERS = (dict, list)
Validator = jsonschema_rs.Draft202012Validator
UNKNOWN = ("additionalProperties", "unevaluatedProperties")
"""Keywords that are told at each of the members that they refuse."""
NO_SCHEMA = (ValueError, TypeError, AttributeError, LookupError)
"""What a reference to something that is no schema ends in."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a value does not fit.

    Attributes:
        pointer: JSON Pointer into the value; empty: the value itself.
        keyword: The schema's keyword that is violated.
        message: What is wrong, short enough to hand to a model.
    """

    pointer: str
    keyword: str
    message: str


class Schema:
    """A compiled schema.

    Args:
        schema: JSON Schema 2020-12.
        field: How errors name it.

    Raises:
        InvalidRequestError: No valid schema, beyond the limits, or with a reference to somewhere else.
    """

    def __init__(self, schema: dict[str, Any], field: str = "schema") -> None:
        check_limits(schema, field)
        try:
            self._validator = compiled(schema)
            self._efforts = efforts(schema, MAX_VALUE_DEPTH, CHECKED_EFFORT)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, *NO_SCHEMA) as error:
            raise InvalidRequestError(f"{field} is no JSON Schema 2020-12", fields={field: first_line(error)}) from None
        if not self._efforts or self._efforts[0] > MAX_EFFORT:
            limits = f"at most {MAX_EFFORT} applications of its parts to one value"
            raise InvalidRequestError(f"{field} multiplies by its references", fields={field: limits})

    def violations(self, value: Any) -> list[Violation]:
        """Lists what does not fit; at most `MAX_VIOLATIONS`, empty: it fits.

        A value that would take too long to look at does not fit, and one that takes long is told so in one sentence.
        """
        depth, places = measured(value, len(self._efforts))
        if depth >= len(self._efforts):
            return [Violation("", "depth", f"goes deeper than {len(self._efforts) - 1} levels")]
        applied = max(self._efforts[: depth + 1])
        effort = places * applied
        if effort > CHECKED_EFFORT:
            return [Violation("", "size", "is too large for its schema")]
        try:
            if self._validator.is_valid(value):
                return []
            if effort > LISTED_EFFORT or applied * len(json.dumps(value)) > LISTED_BYTES:
                return [Violation("", "", "does not fit; it is too large to say where")]
            return self._listed(value)
        except ValueError:
            return [Violation("", "type", "is not JSON: it holds half a surrogate pair")]

    def _listed(self, value: Any) -> list[Violation]:
        found: list[Violation] = []
        for error in self._validator.iter_errors(value):
            pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
            keyword = str(error.schema_path[-1]) if error.schema_path else ""
            unknown = getattr(error.kind, "unexpected", ()) if keyword in UNKNOWN else ()
            found.extend(Violation(f"{pointer}/{escaped(name)}", keyword, "is not known here") for name in unknown)
            if not unknown:
                found.append(Violation(pointer, keyword, middle_cut(error.message)))
            if len(found) >= MAX_VIOLATIONS:
                break
        return found[:MAX_VIOLATIONS]


def compiled(schema: dict[str, Any]) -> Validator:
    """Makes the validator of a schema: formats count, patterns are bounded, and nothing is fetched.

    Raises:
        jsonschema_rs.ValidationError: It is no schema.
        jsonschema_rs.ReferencingError: It refers to what is not in it.
    """
    return Validator(
        schema,
        pattern_options=ENGINE,
        retriever=refuse,
        validate_formats=True,
    )


def measured(value: Any, deepest: int) -> tuple[int, int]:
    """Returns how deep a value goes, counted up to `deepest`, and of how many values it is made, keys included."""
    places, depth, level = 1, 0, [value] if isinstance(value, CONTAINERS) else []
    while level and depth < deepest:
        found = sum([len(one) * (2 if isinstance(one, dict) else 1) for one in level])
        if not found:
            break
        depth += 1
        places += found
        level = [child for one in level for child in children(one) if isinstance(child, CONTAINERS)]
    return depth, places


def children(value: Any) -> Iterable[Any]:
    """Returns what is right below an object or an array."""
    return value.values() if isinstance(value, dict) else value


def check_limits(schema: Any, field: str) -> None:
    """Refuses a schema that is too large, too deep, or points elsewhere.

    Raises:
        InvalidRequestError: Names the pointer.
    """
    if len(json.dumps(schema)) > MAX_BYTES:
        raise InvalidRequestError(f"{field} is too large", fields={field: f"at most {MAX_BYTES} bytes"})
    pending: list[tuple[Any, str, int]] = [(schema, "", 0)]
    nodes = patterns = 0
    while pending:
        node, pointer, depth = pending.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            limits = f"at most {MAX_NODES} nodes, {MAX_DEPTH} deep"
            raise InvalidRequestError(f"{field}{pointer} goes too far", fields={field: limits})
        if isinstance(node, dict):
            check_reference(node, field, pointer)
            patterns += check_patterns(node, field, pointer)
            pending.extend((child, f"{pointer}/{escaped(name)}", depth + 1) for name, child in node.items())
        elif isinstance(node, list):
            pending.extend((child, f"{pointer}/{index}", depth + 1) for index, child in enumerate(node))
    if patterns > MAX_PATTERNS:
        raise InvalidRequestError(f"{field} has too many patterns", fields={field: f"at most {MAX_PATTERNS} patterns"})


def check_reference(node: dict[str, Any], field: str, pointer: str) -> None:
    """Refuses references out of the schema."""
    inside = {"$ref": "#", "$dynamicRef": "#", "$schema": DIALECT}
    for keyword in (*inside, "$id"):
        target = node.get(keyword)
        if isinstance(target, str) and (keyword == "$id" or not target.startswith(inside[keyword])):
            raise InvalidRequestError(
                f"{field}{pointer}/{keyword} points elsewhere", fields={field: "only '#...' is read"}
            )


def check_patterns(node: dict[str, Any], field: str, pointer: str) -> int:
    """Refuses patterns of unreasonable length; returns how many there are."""
    by_name = node.get("patternProperties")
    patterns = [node.get("pattern"), *(by_name if isinstance(by_name, dict) else ())]
    found = [pattern for pattern in patterns if isinstance(pattern, str)]
    if any(len(pattern) > MAX_PATTERN for pattern in found):
        limits = f"at most {MAX_PATTERN} characters a pattern"
        raise InvalidRequestError(f"{field}{pointer} has a pattern that is too long", fields={field: limits})
    return len(found)


def refuse(uri: str) -> Any:
    """Stands where a fetcher would: a schema never makes us open a connection."""
    raise ValueError(f"remote reference {uri} is not read")


def middle_cut(message: str) -> str:
    """Leaves out the middle of a long message: it begins with the value and ends with what is wrong."""
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} … {message[-half:]}"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, bounded."""
    return str(error).partition("\n")[0][:MAX_MESSAGE]


def explained(violations: list[Violation]) -> str:
    """Writes violations as one message that a model can act on."""
    return "; ".join(f"{violation.pointer or '/'}: {violation.message}" for violation in violations)
