"""JSON Schemas as rows that people read: one for each member, however deep. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from meshwright.core.facts import shortened
from meshwright.registry.effort import anchored, target
from meshwright.registry.schema import NO_SCHEMA

MAX_ROWS = 500
MAX_VALUES = 20
MAX_ALTERNATIVES = 8
MAX_DEPTH = 12
"""Levels of a value that are shown, and references that are followed in a row."""
VALUE_BYTES = 120
MORE = "further places: see the schema"
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RANGES = (
    ("minimum", "maximum", ""),
    ("exclusiveMinimum", "exclusiveMaximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
    ("minProperties", "maxProperties", " members"),
)
FURTHER = ("not", "if", "dependentRequired", "dependentSchemas", "propertyNames", "contains", "unevaluatedProperties")
"""Keywords that no row can tell of."""

JsonSchema = dict[str, Any]
Trail = Mapping[int, str]
"""Schemas that the place lies in, with the place of each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One place in a value.

    Attributes:
        place: `order.items[].price`, without a backtick; empty: the value itself. `*` stands for members of any name.
        kind: `integer`, `list of string`, `Circle or null`.
        is_required: It must be there wherever what it belongs to is.
        rules: What a value must keep to; values in them are written as JSON between backticks.
        description: As its author wrote it; may be empty.
    """

    place: str
    kind: str
    is_required: bool
    rules: tuple[str, ...]
    description: str


def rows(schema: JsonSchema) -> list[Row]:
    """Returns the rows of a schema, at most `MAX_ROWS`; an object with members has none for itself."""
    reader = Reader(schema)
    root = reader.whole(schema)
    found: Iterator[Row] = reader.members(root, "", {id(schema): ""})
    if not root.get("properties"):
        found = chain((reader.row(root, "", is_required=False),), found)
    listed = list(islice(found, MAX_ROWS + 1))
    if len(listed) > MAX_ROWS:
        listed[MAX_ROWS:] = [Row("…", "", is_required=False, rules=(MORE,), description="")]
    return listed


class Reader:
    """Reads the parts of one schema.

    Args:
        schema: Valid, with references into itself alone.
    """

    def __init__(self, schema: JsonSchema) -> None:
        self._schema = schema
        self._anchors = dict(anchored(schema))

    def whole(self, node: Any, depth: int = 0) -> JsonSchema:
        """Returns a part with what it refers to and what all of it must be; its own words win."""
        if not isinstance(node, dict) or depth > MAX_DEPTH:
            return {"not": {}} if node is False else {}
        found = dict(node)
        inner = [self._target(found.pop("$ref"))] if "$ref" in found else []
        for part in [*inner, *found.pop("allOf", ())]:
            known = self.whole(part, depth + 1)
            properties = known.get("properties", {}) | found.get("properties", {})
            required = [*known.get("required", ()), *found.get("required", ())]
            found = known | found
            found |= {"properties": properties} if properties else {}
            found |= {"required": required} if required else {}
        return found

    def _target(self, reference: str) -> Any:
        try:
            return target(self._schema, self._anchors, reference)
        except NO_SCHEMA:  # a later version may allow what this one does not know
            return {}

    def members(self, node: JsonSchema, place: str, trail: Trail) -> Iterator[Row]:
        """Yields the rows below a place."""
        required = node.get("required", ())
        for name, member in node.get("properties", {}).items():
            inner = f"{place}.{spelled(name)}" if place else spelled(name)
            yield from self._below(member, inner, trail, is_required=name in required)
        others = {"*": node.get("additionalProperties")} | {f"/{expression(k)}/": v for k, v in patterns(node).items()}
        for name, member in others.items():
            if isinstance(member, dict) and member:
                yield from self._below(member, f"{place}.{name}" if place else name, trail)
        items = {f"[{index}]": one for index, one in enumerate(node.get("prefixItems", ()))} | {"[]": node.get("items")}
        for name, item in items.items():
            if isinstance(item, dict) and item:
                yield from self._below(item, place + name, trail, is_item=name == "[]")
        for kind in alternatives(node):
            part = self.whole(kind)
            for row in self.members(part, place, trail):
                told = f"where it is {label(part)}" if "title" in part else ""
                yield replace(row, rules=(*filter(None, [told]), *row.rules))

    def _below(
        self, node: Any, place: str, trail: Trail, *, is_required: bool = False, is_item: bool = False
    ) -> Iterator[Row]:
        """Yields a place's own row and those below it; a schema within itself is not gone into again."""
        known = [id(one) for one in self._followed(node)]
        part = self.whole(node)
        row = self.row(part, place, is_required=is_required)
        seen = next((trail[one] for one in known if one in trail), None)
        if seen is not None:
            yield replace(row, rules=(*row.rules, f"again what `{seen or 'the whole'}` is"))
            return
        below = self.members(part, place, {**trail, **dict.fromkeys(known, place)})
        if len(set(trail.values())) >= MAX_DEPTH:  # each level has a place of its own
            below, row = iter(()), replace(row, rules=(*row.rules, *(MORE for _ in islice(below, 1))))
        if not is_item or row.rules or row.description:
            yield row
        yield from below

    def _followed(self, node: Any) -> Iterator[Any]:
        """Yields the schemas that one stands for, over references and the parts of alternatives."""
        pending = [node]
        for _ in range(MAX_DEPTH):
            if not pending:
                return
            one = pending.pop()
            if not isinstance(one, dict):
                continue
            if "$ref" in one:
                pending.append(self._target(one["$ref"]))
            else:
                pending.extend(part for part in alternatives(one) if "$ref" in part)
            yield one

    def row(self, part: JsonSchema, place: str, *, is_required: bool) -> Row:
        """Describes one place."""
        return Row(place, self.kind(part), is_required, tuple(rules(part)), str(part.get("description", "")).strip())

    def kind(self, part: JsonSchema, depth: int = 0) -> str:
        """Says of what type a value is."""
        if depth > 2:  # noqa: PLR2004 - deeper, nobody reads it
            return "…"
        if several := alternatives(part):
            kinds = [self.kind(self.whole(one), depth + 1) for one in several[:MAX_ALTERNATIVES]]
            kinds += ["…"] if len(several) > MAX_ALTERNATIVES else []
            return " or ".join(dict.fromkeys(kinds))
        if "enum" in part or "const" in part:
            values = part.get("enum", [part.get("const")])
            return " or ".join(dict.fromkeys(map(type_name, values))) or "nothing"
        types = part.get("type", "object" if "properties" in part else "anything")
        named = [types] if isinstance(types, str) else types
        return " or ".join(self._named(name, part, depth) for name in named)

    def _named(self, name: str, part: JsonSchema, depth: int) -> str:
        if name == "array":
            items = part.get("items")
            return f"list of {self.kind(self.whole(items), depth + 1)}" if items else "list"
        if name == "object":
            extra = part.get("additionalProperties")
            if isinstance(extra, dict) and extra and not part.get("properties"):
                return f"object of {self.kind(self.whole(extra), depth + 1)}"
            return label(part)
        return f"{name} ({part['format']})" if "format" in part and name == "string" else name


def alternatives(node: JsonSchema) -> list[JsonSchema]:
    """Returns the schemas of which a value fits one."""
    several = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    return [one for one in several if isinstance(one, dict)]


def patterns(node: JsonSchema) -> dict[str, Any]:
    """Returns schemas of members by the pattern of their names."""
    found: dict[str, Any] = node.get("patternProperties", {})
    return found


def label(part: JsonSchema) -> str:
    """Names an object by its title."""
    return shortened(str(part.get("title") or "object"), VALUE_BYTES)


def spelled(name: str) -> str:
    """Spells a member's name; one that could be taken for something else stands in quotes."""
    return name if PLAIN_NAME.fullmatch(name) else shown(name)


def shown(value: Any) -> str:
    """Writes a value as JSON, shortened, and without a backtick."""
    return shortened(json.dumps(value, ensure_ascii=False, sort_keys=True).replace("`", "\\u0060"), VALUE_BYTES)


def expression(pattern: Any) -> str:
    """Writes a regular expression, shortened, and without a backtick."""
    return shortened(str(pattern).replace("`", "\\x60"), VALUE_BYTES)


def type_name(value: Any) -> str:
    """Names the type of a JSON value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "object"}
    return names.get(type(value), "null")


def rules(part: JsonSchema) -> Iterator[str]:
    """Says what a value of a part must keep to, then what else its author says of it."""
    if "const" in part:
        yield f"is `{shown(part['const'])}`"
    if "enum" in part:
        yield listed("one of", part["enum"])
    yield from bounds(part)
    if any(word in part for word in FURTHER):
        yield "further rules: see the schema"
    if "default" in part:
        yield f"default `{shown(part['default'])}`"
    if isinstance(part.get("examples"), list) and part["examples"]:
        yield listed("for example", part["examples"])
    if part.get("deprecated"):
        yield "deprecated"


def bounds(part: JsonSchema) -> Iterator[str]:
    """Says how large, how long and of which form a value may be."""
    for least, most, what in RANGES:
        if told := between(part.get(least), part.get(most), what, is_open=least.startswith("exclusive")):
            yield told
    if "multipleOf" in part:
        yield f"a multiple of {shown(part['multipleOf'])}"
    if "pattern" in part:
        yield f"matches `{expression(part['pattern'])}`"
    if part.get("uniqueItems"):
        yield "no item twice"


def between(least: Any, most: Any, what: str, *, is_open: bool) -> str:
    """Says between which bounds a number lies; empty: there are none."""
    at_least, at_most = ("more than", "less than") if is_open else ("at least", "at most")
    if least is not None and most is not None and not is_open:
        return f"{shown(least)} to {shown(most)}{what}" if least != most else f"exactly {shown(least)}{what}"
    told = [f"{word} {shown(bound)}{what}" for word, bound in ((at_least, least), (at_most, most)) if bound is not None]
    return ", ".join(told)


def listed(word: str, values: list[Any]) -> str:
    """Lists values, as many as one reads."""
    more = len(values) - MAX_VALUES
    told = ", ".join(f"`{shown(value)}`" for value in values[:MAX_VALUES])
    return f"{word} {told}" + (f" and {more} more" if more > 0 else "")
