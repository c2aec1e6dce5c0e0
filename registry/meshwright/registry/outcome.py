"""Outcomes: what a tool's result, or its failure, becomes."""

import json
from typing import Any

from meshwright.core.errors import MeshError, ResultTooLargeError, ToolResultInvalidError
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.hosted import Hosted
from meshwright.registry.schema import Violation, explained

MAX_RESULT_BYTES = 1 * 2**20
TEXT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def checked_result(hosted: Hosted, result: Any) -> Outcome:
    """Holds a result against its size and schema, and takes out what nobody is to see.

    Raises:
        ToolResultInvalidError: It breaks the schema, or is no JSON.
        ResultTooLargeError: It exceeds `MAX_RESULT_BYTES`.
    """
    broken = f"{hosted.tool.name} broke its own contract"
    try:
        text = TEXT.encode(result)
        size = len(text.encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolResultInvalidError(f"{broken}: its result is no JSON: {error}") from None
    if size > MAX_RESULT_BYTES:
        raise ResultTooLargeError(f"{hosted.tool.name} returned more than {MAX_RESULT_BYTES} bytes: ask for less")
    violations = hosted.result.violations(result)
    if violations:
        raise ToolResultInvalidError(f"{broken}: {named(violations) if hosted.redaction else explained(violations)}")
    return Outcome(result_json=TEXT.encode(hosted.redaction.applied(result)) if hosted.redaction else text)


def named(violations: list[Violation]) -> str:
    """Lists places and keywords alone: a violation's message quotes the value."""
    return "; ".join(f"{violation.pointer or '/'}: {violation.keyword}" for violation in violations)


def failed(error: MeshError) -> Outcome:
    """Builds the outcome of a failure."""
    return Outcome(error=error.to_status())


def replayed(outcome: Outcome) -> Outcome:
    """Marks an outcome as one of an earlier call."""
    marked = Outcome()
    marked.CopyFrom(outcome)
    marked.replayed = True
    return marked
