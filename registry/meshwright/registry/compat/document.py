"""A schema as a comparison reads it: parts by JSON Pointer, references followed. Pure."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from meshwright.core.canonical import escaped
from meshwright.registry.compat.effort import Effort
from meshwright.registry.compat.literal import EVERY, Leaves, frozen, kind_of, kinds_named
from meshwright.registry.effort import target

ONE_BELOW = frozenset(("not", "if", "then", "else", "propertyNames", "contains", "items", "unevaluatedItems")) | {
    "additionalProperties",
    "unevaluatedProperties",
}
LIST_BELOW = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
NAMED_BELOW = frozenset(("properties", "patternProperties", "dependentSchemas"))
NUMBER_LEAVES = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
STRING_LEAVES = frozenset(("minLength", "maxLength", "pattern", "format"))
ARRAY_LEAVES = frozenset(("minItems", "maxItems", "uniqueItems"))
OBJECT_LEAVES = frozenset(("minProperties", "maxProperties", "required", "dependentRequired"))
LEAVES = frozenset(("type", "enum", "const")) | NUMBER_LEAVES | STRING_LEAVES | ARRAY_LEAVES | OBJECT_LEAVES
OPAQUE = frozenset(("$dynamicRef", "dependencies"))
"""Asserted by the validator, and not compared: a reference that depends on its caller, and draft 7's dependencies."""
ASSERTIONS = ONE_BELOW | LIST_BELOW | NAMED_BELOW | LEAVES | OPAQUE | {"$ref", "minContains", "maxContains"}
"""Whatever else stands in a schema changes no verdict."""
MAX_NESTING = 48
"""Levels of references and parts that are followed within one another."""


@dataclass(slots=True, unsafe_hash=True)
class Place:
    """A schema within a schema; known by its pointer.

    Attributes:
        pointer: JSON Pointer from the root; behind a reference, where the reference leads.
        schema: What stands there.
    """

    pointer: str
    schema: Any = field(compare=False)

    @property
    def words(self) -> dict[str, Any]:
        """Keywords and what they say; none in a boolean schema."""
        return self.schema if isinstance(self.schema, dict) else {}

    @property
    def is_trivial(self) -> bool:
        """Whether every value fits, as far as can be seen at once."""
        return self.schema is not False and ASSERTIONS.isdisjoint(self.words)

    def at(self, keyword: str) -> "Place":
        """Returns the schema that a keyword holds."""
        return Place(f"{self.pointer}/{keyword}", self.schema[keyword])

    def listed(self, keyword: str) -> list["Place"]:
        """Returns the schemas of a keyword that holds a list."""
        below = self.words.get(keyword, ())
        return [Place(f"{self.pointer}/{keyword}/{index}", one) for index, one in enumerate(below)]

    def named(self, keyword: str) -> dict[str, "Place"]:
        """Returns the schemas of a keyword that holds them by name."""
        below = self.words.get(keyword, {})
        return {name: Place(f"{self.pointer}/{keyword}/{escaped(name)}", one) for name, one in below.items()}

    def below(self, keyword: str) -> Iterable["Place"]:
        """Returns the schemas right below a keyword."""
        if keyword in ONE_BELOW:
            return [self.at(keyword)]
        if keyword in LIST_BELOW:
            return self.listed(keyword)
        return self.named(keyword).values() if keyword in NAMED_BELOW else ()


class Document:
    """A whole schema.

    Args:
        schema: A valid schema that points nowhere else.
        effort: What reading it costs.
        leaves: Validators of leaf keywords.
    """

    def __init__(self, schema: dict[str, Any], effort: Effort, leaves: Leaves) -> None:
        self.root = Place("", schema)
        self.effort = effort
        self.leaves = leaves
        self._kinds: dict[str, frozenset[str]] = {}
        self._enums: dict[str, frozenset[Hashable]] = {}
        self._referred: dict[str, Place | None] = {}
        self._anchors: dict[str, list[Place]] | None = None

    def referred(self, place: Place) -> Place | None:
        """Returns where a `$ref` leads; None: to no schema, or to a name that stands more than once."""
        if place.pointer not in self._referred:
            self.effort.spend(0.5)
            self._referred[place.pointer] = self._target(place)
        return self._referred[place.pointer]

    def _target(self, place: Place) -> Place | None:
        name = unquote(place.schema["$ref"].removeprefix("#"))
        if name and not name.startswith("/"):
            named = self._named(name)
            return named[0] if len(named) == 1 else None
        try:
            schema = target(self.root.schema, {}, place.schema["$ref"])
        except (LookupError, ValueError, TypeError):
            return None
        return Place(name, schema) if isinstance(schema, dict | bool) else None

    def unwrapped(self, place: Place) -> Place:
        """Goes to where a schema leads that is nothing but a reference."""
        if "$ref" not in place.words:
            return place
        for _ in range(MAX_NESTING):
            if ASSERTIONS.intersection(place.words) != {"$ref"} or not (referred := self.referred(place)):
                break
            self.effort.spend(0.1)
            place = referred
        return place

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a property's name matches a pattern."""
        self.effort.spend(0.1)
        return self.leaves.matches(pattern, name)

    def _named(self, name: str) -> list[Place]:
        if self._anchors is None:
            self._anchors = {}
            pending: list[tuple[str, Any]] = [("", self.root.schema)]
            while pending:
                pointer, node = pending.pop()
                if isinstance(node, dict):
                    for word in ("$anchor", "$dynamicAnchor"):
                        if isinstance(node.get(word), str):
                            self._anchors.setdefault(node[word], []).append(Place(pointer, node))
                    pending.extend((f"{pointer}/{escaped(key)}", child) for key, child in node.items())
                elif isinstance(node, list):
                    pending.extend((f"{pointer}/{index}", child) for index, child in enumerate(node))
        return self._anchors.get(name, [])

    def conjuncts(self, places: Iterable[Place]) -> tuple[Place, ...] | None:
        """Returns schemas that a value must fit at once: these, and what `$ref` and `allOf` add; None: none fits."""
        found: dict[str, Place] = {}
        pending = list(places)[::-1]
        while pending:
            place = self.unwrapped(pending.pop())
            if place.schema is False:
                return None
            if place.pointer in found or place.is_trivial:
                continue
            self.effort.spend(0.3)
            found[place.pointer] = place
            pending.extend(reversed(place.listed("allOf")))
            if "$ref" in place.words and (referred := self.referred(place)):
                pending.append(referred)
        return tuple(found.values())

    def kinds(self, place: Place, depth: int = 0) -> frozenset[str]:
        """Returns the kinds of values that may fit a schema; at least those that do."""
        if place.schema is False:
            return frozenset()
        if place.is_trivial or depth > MAX_NESTING:
            return EVERY
        if place.pointer not in self._kinds:
            self.effort.spend()
            self._kinds[place.pointer] = EVERY  # for a reference that leads back here
            self._kinds[place.pointer] = self._kinds_of(place, depth + 1)
        return self._kinds[place.pointer]

    def _kinds_of(self, place: Place, depth: int) -> frozenset[str]:
        words = place.words
        kinds = kinds_named(words["type"]) if "type" in words else EVERY
        if (values := self.values(place)) is not None:
            kinds &= {kind_of(value) for value in values}
        for keyword in ("anyOf", "oneOf"):
            if keyword in words:
                kinds &= frozenset().union(*(self.kinds(one, depth) for one in place.listed(keyword)))
        required = [*place.listed("allOf"), self.referred(place) if "$ref" in words else None]
        for one in required:
            if one is not None:
                kinds &= self.kinds(one, depth)
        return kinds

    def values(self, place: Place) -> list[Any] | None:
        """Returns the values that `const` or `enum` allow; None: there is no such list."""
        words = place.words
        if "const" in words:
            return [words["const"]]
        return list(words["enum"]) if "enum" in words else None

    def enumerated(self, place: Place, keyword: str) -> frozenset[Hashable]:
        """Returns the values of `const` or `enum`, ready to look up."""
        key = f"{place.pointer}/{keyword}"
        if key not in self._enums:
            said = place.schema[keyword]
            self._enums[key] = frozenset(map(frozen, [said] if keyword == "const" else said))
        return self._enums[key]
