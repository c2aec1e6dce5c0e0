"""Whether a literal value fits a part of a schema; None where that is not known. Pure."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from meshwright.registry.compat.document import LEAVES, MAX_NESTING, OPAQUE, Document, Place
from meshwright.registry.compat.literal import frozen

Verdict = bool | None
UNKNOWN = OPAQUE | {"unevaluatedProperties", "unevaluatedItems"}


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Joins verdicts that must all be true."""
    known: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        known = known and verdict
    return known


def counted(verdicts: Iterable[Verdict], least: float, most: float = math.inf) -> Verdict:
    """Whether at least and at most so many verdicts are true."""
    listed = list(verdicts)
    sure = sum(verdict is True for verdict in listed)
    possible = sure + sum(verdict is None for verdict in listed)
    if least <= sure and possible <= most:
        return True
    return False if possible < least or sure > most else None


def fits(document: Document, value: Any, place: Place, depth: int = 0) -> Verdict:
    """Whether a value fits a schema; None: cannot be told."""
    if not isinstance(place.schema, dict):
        return bool(place.schema)
    if depth > MAX_NESTING:
        return None
    document.effort.spend(0.3)
    fitting = Fitting(document, value, place, depth)
    return every(fitting.verdict(keyword) for keyword in place.schema)


@dataclass(frozen=True, slots=True)
class Fitting:
    """A value beside a schema."""

    document: Document
    value: Any
    place: Place
    depth: int

    def verdict(self, keyword: str) -> Verdict:
        """Whether the value fits one keyword."""
        if keyword in ("enum", "const"):
            return frozen(self.value) in self.document.enumerated(self.place, keyword)
        if keyword in LEAVES:
            self.document.effort.spend(0.2)
            return self.document.leaves.fit(self.value, keyword, self.place.schema[keyword])
        if keyword in UNKNOWN:
            return None
        check = CHECKS.get(keyword)
        return check(self) if check else True

    def below(self, value: Any, place: Place) -> Verdict:
        """Whether a value, this one or one inside of it, fits another schema."""
        return fits(self.document, value, place, self.depth + 1)

    def here(self, keyword: str) -> list[Verdict]:
        """Holds the value against each schema of a list."""
        return [self.below(self.value, one) for one in self.place.listed(keyword)]

    @property
    def members(self) -> dict[str, Any]:
        """Members of an object; none of another value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Any]:
        """Items of an array; none of another value."""
        return self.value if isinstance(self.value, list) else []


def reference(fitting: Fitting) -> Verdict:
    """`$ref`."""
    referred = fitting.document.referred(fitting.place)
    return None if referred is None else fitting.below(fitting.value, referred)


def negation(fitting: Fitting) -> Verdict:
    """`not`."""
    verdict = fitting.below(fitting.value, fitting.place.at("not"))
    return None if verdict is None else not verdict


def condition(fitting: Fitting) -> Verdict:
    """`if`, `then` and `else`."""
    chosen = fitting.below(fitting.value, fitting.place.at("if"))
    if chosen is None:
        return None
    branch = "then" if chosen else "else"
    return fitting.below(fitting.value, fitting.place.at(branch)) if branch in fitting.place.words else True


def properties(fitting: Fitting) -> Verdict:
    """`properties`."""
    named = fitting.place.named("properties")
    return every(fitting.below(value, named[name]) for name, value in fitting.members.items() if name in named)


def patterned(fitting: Fitting) -> Verdict:
    """`patternProperties`."""
    matches = fitting.document.matches
    return every(
        fitting.below(value, one)
        for pattern, one in fitting.place.named("patternProperties").items()
        for name, value in fitting.members.items()
        if matches(pattern, name)
    )


def additional(fitting: Fitting) -> Verdict:
    """`additionalProperties`."""
    words, matches = fitting.place.words, fitting.document.matches
    others = [
        value
        for name, value in fitting.members.items()
        if name not in words.get("properties", ())
        and not any(matches(pattern, name) for pattern in words.get("patternProperties", ()))
    ]
    return every(fitting.below(value, fitting.place.at("additionalProperties")) for value in others)


def names(fitting: Fitting) -> Verdict:
    """`propertyNames`."""
    return every(fitting.below(name, fitting.place.at("propertyNames")) for name in fitting.members)


def dependent(fitting: Fitting) -> Verdict:
    """`dependentSchemas`."""
    named = fitting.place.named("dependentSchemas")
    return every(fitting.below(fitting.value, one) for name, one in named.items() if name in fitting.members)


def prefix(fitting: Fitting) -> Verdict:
    """`prefixItems`."""
    pairs = zip(fitting.items, fitting.place.listed("prefixItems"), strict=False)
    return every(fitting.below(item, one) for item, one in pairs)


def rest(fitting: Fitting) -> Verdict:
    """`items`."""
    start = len(fitting.place.words.get("prefixItems", ()))
    return every(fitting.below(item, fitting.place.at("items")) for item in fitting.items[start:])


def contains(fitting: Fitting) -> Verdict:
    """`contains` with its bounds."""
    if not isinstance(fitting.value, list):
        return True
    found = (fitting.below(item, fitting.place.at("contains")) for item in fitting.items)
    words = fitting.place.words
    return counted(found, words.get("minContains", 1), words.get("maxContains", math.inf))


CHECKS: dict[str, Callable[[Fitting], Verdict]] = {
    "$ref": reference,
    "allOf": lambda fitting: every(fitting.here("allOf")),
    "anyOf": lambda fitting: counted(fitting.here("anyOf"), 1),
    "oneOf": lambda fitting: counted(fitting.here("oneOf"), 1, 1),
    "not": negation,
    "if": condition,
    "properties": properties,
    "patternProperties": patterned,
    "additionalProperties": additional,
    "propertyNames": names,
    "dependentSchemas": dependent,
    "prefixItems": prefix,
    "items": rest,
    "contains": contains,
}
