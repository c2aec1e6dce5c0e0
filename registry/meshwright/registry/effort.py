"""How much work a schema can make: how often its parts are applied to one place of a value. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

JsonSchema = dict[str, Any]


def efforts(schema: JsonSchema, depth: int, limit: int) -> list[int]:
    """Counts how often parts of a schema can be applied to one place of a value, by the depth of that place.

    The counts are upper bounds. Without recursion they stay below the number of parts, unless a schema refers to the
    same part again and again; with recursion they may grow at every level.

    Args:
        schema: A valid schema.
        depth: Of the deepest place that is asked for; the value itself is at 0.
        limit: The list ends before the first count beyond it.

    Raises:
        ValueError: A part is applied without end to the same place.
    """
    parts = reachable(schema)
    try:
        order = list(TopologicalSorter({name: part.here for name, part in parts.items()}).static_order())
    except CycleError:
        raise ValueError("a reference leads back to itself without going into the value") from None
    level: dict[int, int] = {}
    for name in order:
        level[name] = parts[name].weight + sum(level[here] for here in parts[name].here)
    counts: list[int] = []
    while len(counts) <= depth and level[id(schema)] <= limit:
        counts.append(level[id(schema)])
        objects: dict[int, int] = {}
        arrays: dict[int, int] = {}
        for name in order:
            part = parts[name]
            objects[name] = below(part.in_objects, level) + sum(objects[here] for here in part.here)
            arrays[name] = below(part.in_arrays, level) + sum(arrays[here] for here in part.here)
        level = {name: max(objects[name], arrays[name]) for name in order}
    return counts


def below(choices: Iterable[list[int]], level: dict[int, int]) -> int:
    """Adds up what can meet at one place; of the parts of one choice only one applies."""
    return sum(max(level[name] for name in choice) for choice in choices)


@dataclass(frozen=True, slots=True)
class Part:
    """A schema within the schema.

    Attributes:
        weight: Its own share of the work.
        here: Parts that are applied wherever it is.
        in_objects: Parts that it applies to an object's members; of each list only one to the same member.
        in_arrays: The same for the items of an array.
    """

    weight: int
    here: list[int]
    in_objects: list[list[int]]
    in_arrays: list[list[int]]


def reachable(schema: JsonSchema) -> dict[int, Part]:
    """Returns a schema's parts by `id`, as far as they can be reached from its root."""
    anchors = dict(anchored(schema))
    found: dict[int, Part] = {}
    pending: list[Any] = [schema]

    def names(*values: Any) -> list[int]:
        parts = [value for value in values if isinstance(value, dict)]
        pending.extend(parts)
        return [id(part) for part in parts]

    while pending:
        node = pending.pop()
        if id(node) in found:
            continue
        several = [one for keyword in ("allOf", "anyOf", "oneOf") for one in node.get(keyword, ())]
        targets = [target(schema, anchors, node[word]) for word in ("$ref", "$dynamicRef") if word in node]
        found[id(node)] = Part(
            weight=1 + len(node.get("enum", ())) + len(node.get("required", ())),
            here=names(
                *(node.get(keyword) for keyword in ("not", "if", "then", "else")),
                *several,
                *node.get("dependentSchemas", {}).values(),
                *node.get("dependencies", {}).values(),  # of draft 7: asserted all the same
                *targets,
            ),
            in_objects=filled(
                names(*node.get("properties", {}).values(), node.get("additionalProperties")),
                *(names(one) for one in node.get("patternProperties", {}).values()),
                names(node.get("propertyNames")),
                names(node.get("unevaluatedProperties")),
            ),
            in_arrays=filled(
                names(*node.get("prefixItems", ()), node.get("items")),
                names(node.get("contains")),
                names(node.get("unevaluatedItems")),
            ),
        )
    return found


def filled(*choices: list[int]) -> list[list[int]]:
    """Leaves out what is empty."""
    return [choice for choice in choices if choice]


def anchored(node: Any) -> Iterable[tuple[str, JsonSchema]]:
    """Yields what can be referred to by a name."""
    if isinstance(node, dict):
        yield from ((str(node[word]), node) for word in ("$anchor", "$dynamicAnchor") if word in node)
        for child in node.values():
            yield from anchored(child)
    elif isinstance(node, list):
        for child in node:
            yield from anchored(child)


def target(schema: JsonSchema, anchors: dict[str, JsonSchema], reference: str) -> Any:
    """Returns what a reference within a schema means."""
    pointer = unquote(reference.removeprefix("#"))
    if pointer and not pointer.startswith("/"):
        return anchors.get(pointer)
    node: Any = schema
    for segment in pointer.split("/")[1:]:
        name = segment.replace("~1", "/").replace("~0", "~")
        node = node[int(name)] if isinstance(node, list) else node[name]
    return node
