"""How much work a schema can make: how often its parts are applied to one place of a value. Pure."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

Part = dict[str, Any]
"""A schema within the schema; `true` and `false` cost nothing."""

ONE_HERE = ("not", "if", "then", "else")
MANY_HERE = ("allOf", "anyOf", "oneOf")
IN_OBJECTS = ("properties", "additionalProperties"), ("patternProperties",), ("propertyNames", "unevaluatedProperties")
IN_ARRAYS = ("prefixItems", "items"), ("contains",), ("unevaluatedItems",)


def efforts(schema: Part, depth: int, limit: int) -> list[int]:
    """Counts how often parts of a schema can be applied to one place of a value, by the depth of that place.

    The counts are upper bounds. A schema without recursion stays below the number of its parts, unless it refers to
    the same part again and again; with recursion the counts may grow at every level.

    Args:
        schema: A valid schema.
        depth: Of the deepest place that is asked for; the value itself is at 0.
        limit: The list ends before the first count beyond it.

    Raises:
        ValueError: A part is applied to the place at which it is applied already, without end.
    """
    parts = Parts(schema)
    order = list(parts.innermost_first())
    level = {id(part): 0 for part in order}
    for part in order:
        level[id(part)] = 1 + len(part.get("enum", ())) + sum(level[id(here)] for here in parts.here(part))
    counts: list[int] = []
    while len(counts) <= depth and level[id(schema)] <= limit:
        counts.append(level[id(schema)])
        level = one_deeper(parts, order, level)
    return counts


def one_deeper(parts: "Parts", order: list[Part], above: dict[int, int]) -> dict[int, int]:
    """Counts applications one level further down in a value; objects and arrays exclude each other."""
    counts: list[dict[int, int]] = []
    for kinds in (IN_OBJECTS, IN_ARRAYS):
        count: dict[int, int] = {}
        for part in order:
            below = sum(most(parts.below(part, kind), above, is_sum=len(kind) == 1) for kind in kinds)
            count[id(part)] = below + sum(count[id(here)] for here in parts.here(part))
        counts.append(count)
    return {place: max(count[place] for count in counts) for place in counts[0]}


def most(below: list[Part], above: dict[int, int], *, is_sum: bool) -> int:
    """Adds up the parts that apply to the same place below, or takes the largest of those that exclude each other."""
    counts = [above[id(part)] for part in below]
    return sum(counts) if is_sum else max(counts, default=0)


class Parts:
    """A schema's parts and what is applied beside and below each."""

    def __init__(self, schema: Part) -> None:
        self._root = schema
        self._anchors: dict[str, Part] = {}
        self._find_anchors()

    def _find_anchors(self) -> None:
        pending: list[Any] = [self._root]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                for keyword in ("$anchor", "$dynamicAnchor"):
                    if isinstance(node.get(keyword), str):
                        self._anchors[node[keyword]] = node
                pending.extend(node.values())
            elif isinstance(node, list):
                pending.extend(node)

    def here(self, part: Part) -> list[Part]:
        """Returns what is applied wherever a part is applied."""
        found = [part.get(keyword) for keyword in ONE_HERE]
        found += [one for keyword in MANY_HERE for one in part.get(keyword, ())]
        found += part.get("dependentSchemas", {}).values()
        found += [self._target(part[keyword]) for keyword in ("$ref", "$dynamicRef") if keyword in part]
        return [one for one in found if isinstance(one, dict)]

    def below(self, part: Part, keywords: tuple[str, ...]) -> list[Part]:
        """Returns what some keywords of a part apply to the places right below."""
        found: list[Any] = []
        for keyword in keywords:
            value = part.get(keyword)
            if keyword in ("properties", "patternProperties"):
                found += (value or {}).values()
            else:
                found += value if isinstance(value, list) else [value]
        return [one for one in found if isinstance(one, dict)]

    def _target(self, reference: str) -> Any:
        pointer = unquote(reference.removeprefix("#"))
        if pointer and not pointer.startswith("/"):
            return self._anchors.get(pointer)
        node: Any = self._root
        for segment in pointer.split("/")[1:]:
            name = segment.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
        return node

    def innermost_first(self) -> Iterator[Part]:
        """Yields every part that can be reached, after what is applied together with it.

        Raises:
            ValueError: There is no such order.
        """
        done: set[int] = set()
        for root in self._reachable():
            open_parts: dict[int, Iterator[Part]] = {}
            path: list[Part] = []
            pending: Part | None = None if id(root) in done else root
            while pending is not None or path:
                if pending is not None:
                    open_parts[id(pending)] = iter(self.here(pending))
                    path.append(pending)
                following = next((one for one in open_parts[id(path[-1])] if id(one) not in done), None)
                if following is not None and id(following) in open_parts:
                    raise ValueError("a schema refers to itself without end")
                pending = following
                if following is None:
                    part = path.pop()
                    del open_parts[id(part)]
                    done.add(id(part))
                    yield part

    def _reachable(self) -> list[Part]:
        found = {id(self._root): self._root}
        pending = [self._root]
        while pending:
            part = pending.pop()
            below = [one for kind in (*IN_OBJECTS, *IN_ARRAYS) for one in self.below(part, kind)]
            for one in (*self.here(part), *below):
                if id(one) not in found:
                    found[id(one)] = one
                    pending.append(one)
        return list(found.values())
