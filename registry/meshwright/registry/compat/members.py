"""What a case says about an object's members. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.registry.compat.document import OPAQUE, Document, Place

IN_PLACE = ("anyOf", "oneOf", "if", "then", "else", "not")
"""Keywords that, beside `allOf`, `$ref` and `dependentSchemas`, apply further schemas to the same value."""
CONDITIONAL = frozenset(("anyOf", "oneOf", "if", "dependentSchemas")) | OPAQUE
APPLYING = CONDITIONAL | {"allOf", "$ref"}


@dataclass(frozen=True, slots=True)
class Rest:
    """A schema for all members that nothing else describes.

    Attributes:
        names: Members to which it does not apply.
        patterns: Nor does it to members with matching names; the schemas for them, as far as known.
        schema: The schema.
    """

    names: frozenset[str]
    patterns: Mapping[str, tuple[Place, ...]]
    schema: Place

    def covers(self, document: Document, name: str) -> bool:
        """Whether it applies to a member."""
        document.effort.spend(0.05 * (1 + len(self.patterns)))
        return name not in self.names and not any(document.matches(one, name) for one in self.patterns)


def rest_of(document: Document, place: Place) -> Rest | None:
    """Returns what a schema says of members that it does not describe; where in doubt, of fewer."""
    if "additionalProperties" in place.words:
        return plain_rest(place, "additionalProperties")
    if "unevaluatedProperties" not in place.words:
        return None
    plain = plain_rest(place, "unevaluatedProperties")
    if APPLYING.isdisjoint(place.words):
        return plain
    evaluated = possibly_evaluated(document, place)
    if evaluated is None:
        return None
    names, patterns = evaluated
    return Rest(plain.names | names, dict.fromkeys((*plain.patterns, *patterns), ()), plain.schema)


def plain_rest(place: Place, keyword: str) -> Rest:
    """Returns what a keyword says of members that its own schema does not describe by name or pattern."""
    patterns = {pattern: (one,) for pattern, one in place.named("patternProperties").items()}
    return Rest(frozenset(place.words.get("properties", ())), patterns, place.at(keyword))


def possibly_evaluated(document: Document, place: Place) -> tuple[frozenset[str], frozenset[str]] | None:
    """Returns names and patterns of members that schemas within a schema may describe; None: any member."""
    names: set[str] = set()
    patterns: set[str] = set()
    seen = {place.pointer}
    pending = applied(document, place)
    while pending:
        inner = pending.pop()
        if inner is None or not OPAQUE.isdisjoint(inner.words):
            return None
        if not {"additionalProperties", "unevaluatedProperties"}.isdisjoint(inner.words):
            return None
        if inner.pointer not in seen:
            document.effort.spend()
            seen.add(inner.pointer)
            names.update(inner.words.get("properties", ()))
            patterns.update(inner.words.get("patternProperties", ()))
            pending.extend(applied(document, inner))
    return frozenset(names), frozenset(patterns)


def applied(document: Document, place: Place) -> list[Place | None]:
    """Returns the schemas that a schema may apply to the value itself; None stands for one that is not known."""
    found: list[Place | None] = []
    for keyword in ("allOf", "dependentSchemas", *IN_PLACE):
        if keyword in place.words:
            found.extend(place.below(keyword))
    if "$ref" in place.words:
        found.append(document.referred(place))
    if not OPAQUE.isdisjoint(place.words):
        found.append(None)
    return found


class Members:
    """The members of objects that fit several schemas at once.

    Args:
        document: Where the schemas stand.
        places: The schemas.
    """

    def __init__(self, document: Document, places: tuple[Place, ...]) -> None:
        self._document = document
        self._places = places
        self.rests = [rest for place in places if (rest := rest_of(document, place))]
        self._described = [place.named("properties") for place in places if "properties" in place.words]
        self._patterns = [item for place in places for item in place.named("patternProperties").items()]
        self.names = list(dict.fromkeys(name for named in self._described for name in named))
        self.required = self._required()
        self._cost = 0.3 + 0.1 * (len(self._described) + len(self._patterns))
        document.effort.spend(0.2 * (len(places) + len(self.names) + len(self.required)))

    def _required(self) -> frozenset[str]:
        found = {name for place in self._places for name in place.words.get("required", ())}
        pending = list(found)
        while pending:
            name = pending.pop()
            for place in self._places:
                more = set(place.words.get("dependentRequired", {}).get(name, ())) - found
                found |= more
                pending.extend(more)
        return frozenset(found)

    def at(self, name: str) -> tuple[Place, ...]:
        """Returns the schemas that a member must fit, if it is there."""
        self._document.effort.spend(self._cost)
        found = [named[name] for named in self._described if name in named]
        found.extend(one for pattern, one in self._patterns if self._document.matches(pattern, name))
        found.extend(rest.schema for rest in self.rests if rest.covers(self._document, name))
        return tuple(dict.fromkeys(found))

    def matching(self, pattern: str) -> tuple[Place, ...]:
        """Returns the schemas for members whose names match just this pattern."""
        return tuple(one for same, one in self._patterns if same == pattern)

    def may_have(self, name: str) -> bool:
        """Whether a member can be there."""
        return self._document.conjuncts(self.at(name)) is not None
