"""What the check of a tool call's arguments costs."""

import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.findings import Finding, spread
from benchmarks.parts import BenchmarkError, Scene
from benchmarks.rounds import Effort
from meshwright.registry.arguments import read_arguments
from meshwright.registry.schema import Schema

FIELDS = 20
CALLS = 5_000
GOAL_US = 10.0

WORDS = ("name", "street", "city", "country", "note", "mail", "phone", "title", "unit", "place")
COUNTS = ("rooms", "nights", "guests", "floor", "stars")
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(WORDS, "some text"),
    **dict.fromkeys(COUNTS, 3),
    "price": 12.5,
    "tax": 0.5,
    "is_paid": True,
    "is_late": False,
    "tags": ["quiet", "sea"],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{word: {"type": "string", "maxLength": 100} for word in WORDS},
        **{count: {"type": "integer", "minimum": 0, "maximum": 100} for count in COUNTS},
        **{key: {"type": "number", "exclusiveMinimum": 0} for key in ("price", "tax")},
        **{key: {"type": "boolean"} for key in ("is_paid", "is_late")},
        "tags": {"type": "array", "items": {"enum": ["quiet", "sea", "garden"]}},
    },
    "required": list(ARGUMENTS),
    "additionalProperties": False,
}


async def run(_: Scene, effort: Effort) -> list[Finding]:
    """Measures the check, and beside it the reading of the same arguments from text."""
    schema, text = Schema(SCHEMA), json.dumps(ARGUMENTS)
    if schema.violations(ARGUMENTS) or not schema.violations({}) or len(SCHEMA["properties"]) != FIELDS:
        raise BenchmarkError("the schema does not tell what fits")

    async def check() -> float:
        return cost_us(lambda: schema.violations(ARGUMENTS), CALLS * effort.scale)

    async def read() -> float:
        return cost_us(lambda: read_arguments(text), CALLS * effort.scale)

    found = await effort.interleaved({"check": check, "read": read})
    return [
        Finding(
            name="arguments",
            what=f"arguments of {FIELDS} fields held against their schema",
            unit="µs CPU",
            ours=found["check"],
            goal=GOAL_US,
            is_gated=True,
            beside={"read from text": f"{spread(found['read'])} µs"},
        )
    ]


def cost_us(act: Callable[[], object], calls: int) -> float:
    """Returns the CPU microseconds of one call."""
    started = time.process_time()
    for _ in range(calls):
        act()
    return (time.process_time() - started) / calls * 1e6
