"""Values: JSON as models and tools write it, made fit for the journal, and read back without loss. Pure."""

import json
import math
from typing import Any

from meshwright.agents.models.model import JsonObject
from meshwright.core.canonical import LARGEST, from_struct, to_struct
from meshwright.gen.agents.v1.step_event_pb2 import PlannedCall

DEEPEST = 24
"""Levels of nesting: a level takes three of the hundred that protobuf reads, and events of children are nested too."""
TOO_DEEP = "arguments_were_nested_too_deeply"


def is_deep(value: Any) -> bool:
    """Whether a value is nested deeper than the journal takes."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [item for one in level for item in items_of(one)]
        if not level:
            return False
    return True


def items_of(value: Any) -> list[Any]:
    """Returns what an object or a list holds; nothing for all else."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def fitting(value: Any) -> Any:
    """Replaces what protobuf or JSON cannot hold: half characters, and numbers that are none."""
    if isinstance(value, dict):
        return {fitting(key): fitting(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fitting(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def fitting_arguments(arguments: JsonObject) -> JsonObject:
    """Returns a model's arguments as they can be journaled."""
    fit: JsonObject = {TOO_DEEP: True} if is_deep(arguments) else fitting(arguments)
    return fit


def planned_call(call_id: str, tool: str, arguments: JsonObject) -> PlannedCall:
    """Writes a call as it is journaled; numbers that a Struct would change stand beside it as JSON text."""
    exact = json.dumps(arguments) if has_long_number(arguments) else ""
    return PlannedCall(call_id=call_id, tool=tool, arguments=to_struct(arguments), arguments_json=exact)


def arguments_of(call: PlannedCall) -> JsonObject:
    """Reads a call's arguments, exact numbers included."""
    if call.arguments_json:
        exact: JsonObject = json.loads(call.arguments_json)
        return exact
    return from_struct(call.arguments, "arguments")


def has_long_number(value: Any) -> bool:
    """Whether a number in a value has more digits than a double keeps."""
    if isinstance(value, int | float):
        return abs(value) >= LARGEST
    return any(map(has_long_number, items_of(value)))


def parsed_result(text: str) -> Any:
    """Reads a tool's result; what is no exact number becomes text, as it will stand in the journal."""
    return fitting(EXACT.decode(text))


def number(text: str) -> float | str:
    """Reads a decimal; one that stands for an integer beyond the exact range stays text."""
    value = float(text)
    return value if abs(value) < LARGEST else text


EXACT = json.JSONDecoder(parse_float=number, parse_constant=str)
