"""Whether what became of a case is as its checks say. Pure."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from meshwright.agents.evals.case import Checks, ExpectedCall
from meshwright.agents.testing import MadeCall, Played
from meshwright.registry.schema import Schema, explained

LONGEST_SHOWN = 200


def failures(checks: Checks, played: Played) -> list[str]:
    """Lists what is not as it should be, each in one line; empty: all is. The judge's opinion is not asked here."""
    return [*_of_end(checks, played), *_of_output(checks, played.output), *_of_calls(checks, played.calls)]


def _of_end(checks: Checks, played: Played) -> Iterator[str]:
    if played.finish != checks.finish:
        why = played.error.message if played.error else "".join(one.prompt for one in played.asked[:1])
        yield f"finish is {played.finish}, not {checks.finish}{f': {_shown(why)}' if why else ''}"
    if checks.max_steps is not None and played.task.steps_used > checks.max_steps:
        yield f"took {played.task.steps_used} steps, at most {checks.max_steps} are allowed"
    if checks.max_tokens is not None and played.task.tokens_used > checks.max_tokens:
        yield f"took {played.task.tokens_used} tokens, at most {checks.max_tokens} are allowed"


def _of_output(checks: Checks, output: str) -> Iterator[str]:
    for text in checks.contains:
        if text not in output:
            yield f"does not contain {_shown(text)!r}: {_shown(output)!r}"
    for text in checks.lacks:
        if text in output:
            yield f"contains {_shown(text)!r}"
    for pattern in checks.matches:
        if Schema({"pattern": pattern}).violations(output):
            yield f"does not match {_shown(pattern)}: {_shown(output)!r}"
    if checks.equals is not None and output.strip() != checks.equals.strip():
        yield f"is not {_shown(checks.equals)!r}: {_shown(output)!r}"
    if checks.json_schema is not None:
        yield from _of_json(checks.json_schema, output)


def _of_json(schema: dict[str, Any], output: str) -> Iterator[str]:
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        yield f"is no JSON: {_shown(output)!r}"
        return
    if violations := Schema(schema).violations(value):
        yield f"does not fit its schema: {explained(violations)}"


def _of_calls(checks: Checks, made: Sequence[MadeCall]) -> Iterator[str]:
    for expected in checks.calls:
        if not any(_is_meant(expected, call) for call in made):
            yield f"made no call of {_told(expected)}: calls were {', '.join(call.tool for call in made) or 'none'}"
    for refused in checks.no_calls:
        if any(_is_meant(refused, call) for call in made):
            yield f"made a call of {_told(refused)}"


def _is_meant(expected: ExpectedCall, call: MadeCall) -> bool:
    is_named = call.tool == expected.tool or (
        expected.tool.endswith("*") and call.tool.startswith(expected.tool.removesuffix("*"))
    )
    return is_named and expected.agent in ("", call.agent) and holds(call.arguments, expected.arguments)


def holds(value: Any, part: Any) -> bool:
    """Whether a JSON value has all that a part of it names: members of objects; lists item by item."""
    if isinstance(part, dict):
        return isinstance(value, dict) and all(name in value and holds(value[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(value, list) and len(value) == len(part) and all(map(holds, value, part))
    return isinstance(value, bool) == isinstance(part, bool) and bool(value == part)


def _told(expected: ExpectedCall) -> str:
    arguments = f" with {_shown(json.dumps(expected.arguments, ensure_ascii=False))}" if expected.arguments else ""
    return f"{expected.tool}{arguments}{f' by {expected.agent}' if expected.agent else ''}"


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
