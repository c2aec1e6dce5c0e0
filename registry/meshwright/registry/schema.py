"""JSON Schema 2020-12 for tools: compiled once, safe against hostile schemas and patterns. Pure."""

import json
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from meshwright.core.errors import InvalidRequestError

MAX_BYTES = 64 * 2**10
MAX_DEPTH = 32
MAX_NODES = 2_000
MAX_VIOLATIONS = 10
MAX_MESSAGE = 200
MAX_PATTERN = 1_000


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
            self._validator = jsonschema_rs.Draft202012Validator(
                schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=refuse, validate_formats=True
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise InvalidRequestError(f"{field} is no JSON Schema 2020-12", fields={field: first_line(error)}) from None

    def violations(self, value: Any) -> list[Violation]:
        """Lists what does not fit; at most `MAX_VIOLATIONS`, empty: it fits."""
        found: list[Violation] = []
        for error in self._validator.iter_errors(value):
            pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
            keyword = str(error.schema_path[-1]) if error.schema_path else ""
            found.append(Violation(pointer, keyword, error.message[:MAX_MESSAGE]))
            if len(found) == MAX_VIOLATIONS:
                break
        return found


def check_limits(schema: Any, field: str) -> None:
    """Refuses a schema that is too large, too deep, or points elsewhere.

    Raises:
        InvalidRequestError: Names the pointer.
    """
    if len(json.dumps(schema)) > MAX_BYTES:
        raise InvalidRequestError(f"{field} is too large", fields={field: f"at most {MAX_BYTES} bytes"})
    pending: list[tuple[Any, str, int]] = [(schema, "", 0)]
    nodes = 0
    while pending:
        node, pointer, depth = pending.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            limits = f"at most {MAX_NODES} nodes, {MAX_DEPTH} deep"
            raise InvalidRequestError(f"{field}{pointer} goes too far", fields={field: limits})
        if isinstance(node, dict):
            check_reference(node, field, pointer)
            pending.extend((child, f"{pointer}/{name}", depth + 1) for name, child in node.items())
        elif isinstance(node, list):
            pending.extend((child, f"{pointer}/{index}", depth + 1) for index, child in enumerate(node))


def check_reference(node: dict[str, Any], field: str, pointer: str) -> None:
    """Refuses references out of the schema and patterns of unreasonable length."""
    for keyword in ("$ref", "$dynamicRef", "$schema", "$id"):
        target = node.get(keyword)
        is_inside = not isinstance(target, str) or target.startswith(("#", "https://json-schema.org/draft/2020-12/"))
        if keyword in node and (not is_inside or (keyword == "$id" and isinstance(target, str))):
            raise InvalidRequestError(
                f"{field}{pointer}/{keyword} points elsewhere", fields={field: "only '#/...' is read"}
            )
    pattern = node.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
        raise InvalidRequestError(f"{field}{pointer}/pattern is too long", fields={field: f"at most {MAX_PATTERN}"})


def refuse(uri: str) -> Any:
    """Stands where a fetcher would: a schema never makes us open a connection."""
    raise ValueError(f"remote reference {uri} is not read")


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, bounded."""
    return str(error).partition("\n")[0][:MAX_MESSAGE]


def explained(violations: list[Violation]) -> str:
    """Writes violations as one message that a model can act on."""
    return "; ".join(f"{violation.pointer or '/'}: {violation.message}" for violation in violations)
