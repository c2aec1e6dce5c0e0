"""Whether one schema accepts all that another does. Pure.

A proof by rules that each are sure: what they cannot tell counts as a difference. The wide schema is taken apart
keyword by keyword; where the narrow one as a whole does not keep to a keyword, it is split into cases.
"""

from collections.abc import Callable, Hashable, Iterable

from meshwright.registry.compat import applicators, items, properties
from meshwright.registry.compat.case import MAX_PARTS, Case, case_of
from meshwright.registry.compat.disjoint import disjoint
from meshwright.registry.compat.document import (
    ARRAY_LEAVES,
    ASSERTIONS,
    LEAVES,
    MAX_NESTING,
    NUMBER_LEAVES,
    OBJECT_LEAVES,
    OPAQUE,
    STRING_LEAVES,
    Document,
    Place,
)
from meshwright.registry.compat.effort import Effort, ExhaustedError
from meshwright.registry.compat.fitting import fits
from meshwright.registry.compat.limits import LIMITS
from meshwright.registry.compat.literal import ARRAY, EVERY, NUMBERS, OBJECT, STRING, Leaves, kinds_named, kinds_said
from meshwright.registry.compat.prover import Prover
from meshwright.registry.compat.rule import Difference, Differences, Rule, undecided
from meshwright.registry.compat.sameness import Sameness

Check = Callable[[Prover, Case, Place, str], Differences]
OF_OBJECTS: dict[str, Check] = {
    "properties": properties.described,
    "patternProperties": properties.patterned,
    "additionalProperties": properties.additional,
    "unevaluatedProperties": properties.unevaluated,
    "propertyNames": properties.names,
    "dependentSchemas": properties.dependent_schemas,
}
OF_ARRAYS: dict[str, Check] = {
    "prefixItems": items.prefix,
    "items": items.rest,
    "unevaluatedItems": items.unevaluated,
    "contains": items.contains,
}
OF_ANY: dict[str, Check] = {
    "$ref": applicators.reference,
    "allOf": applicators.every,
    "anyOf": applicators.some,
    "oneOf": applicators.one,
    "not": applicators.none,
    "if": applicators.conditional,
}
CHECKS = OF_OBJECTS | OF_ARRAYS | OF_ANY
PART_OF_OTHERS = frozenset(("type", "then", "else", "minContains", "maxContains"))
"""Keywords that are looked at together with another one, or first of all."""
READS_SIBLINGS = frozenset(
    ("additionalProperties", "unevaluatedProperties", "items", "unevaluatedItems", "contains", "if")
)
"""Keywords that two schemas may share and yet mean something else by."""


def concerned(keyword: str) -> frozenset[str]:
    """Returns the kinds of values that a keyword says something about."""
    if keyword in OBJECT_LEAVES or keyword in OF_OBJECTS:
        return frozenset((OBJECT,))
    if keyword in ARRAY_LEAVES or keyword in OF_ARRAYS:
        return frozenset((ARRAY,))
    if keyword in STRING_LEAVES:
        return frozenset((STRING,))
    return NUMBERS if keyword in NUMBER_LEAVES else EVERY


CONCERNED = {keyword: concerned(keyword) for keyword in ASSERTIONS}


class Containment:
    """The question whether all values that fit the narrow schema fit the wide one.

    Args:
        narrow: The schema whose values are asked about.
        wide: The schema that is to accept them.
        leaves: Validators of leaf keywords.
    """

    def __init__(self, narrow: dict[str, object], wide: dict[str, object], leaves: Leaves) -> None:
        self._effort = Effort()
        self.narrow = Document(narrow, self._effort, leaves)
        self.wide = Document(wide, self._effort, leaves)
        self._sameness = Sameness(self.narrow, self.wide)
        self._known: dict[tuple[Hashable, str], Differences] = {}
        self._proven: list[tuple[Hashable, str]] = []
        self._disjoint: dict[tuple[Hashable, str], bool] = {}
        self._wide_cases: dict[str, Case] = {}
        self._depth = 0

    def differences(self) -> Differences:
        """Says why values may fit the narrow schema and not the wide one; empty: none can.

        Raises:
            ExhaustedError: It would take too long to tell.
        """
        return tuple(dict.fromkeys(self.prove((self.narrow.root,), self.wide.root)))

    def prove(self, places: Iterable[Place], wide: Place) -> Differences:
        """Says why values that fit some parts of the narrow schema may not fit a part of the wide one."""
        listed = tuple(places)
        if any(self.same(place, wide) for place in listed):
            return ()
        return self.holds(case_of(self.narrow, listed), wide)

    def same(self, narrow: Place, wide: Place) -> bool:
        """Whether two parts are the same, word by word."""
        return self._sameness.same(narrow, wide)

    def disjoint(self, case: Case, wide: Place) -> bool:
        """Whether it is sure that no value of a case fits a part of the wide schema."""
        key = (case.key, wide.pointer)
        if key not in self._disjoint:
            if wide.pointer not in self._wide_cases:
                self._wide_cases[wide.pointer] = case_of(self.wide, (wide,))
            self._disjoint[key] = disjoint(case, self._wide_cases[wide.pointer])
        return self._disjoint[key]

    def holds(self, case: Case, wide: Place) -> Differences:
        """Says why values of a case may not fit a part of the wide schema.

        A question that comes up within itself is taken as answered: by then it is about a smaller value. Where it turns
        out otherwise, all that was built on it is forgotten.
        """
        wide = self.wide.unwrapped(wide)
        if case.is_empty or wide.is_trivial:
            return ()
        if wide.schema is False:
            return (Difference(Rule.FORBIDDEN, wide.pointer),)
        key = (case.key, wide.pointer)
        if key not in self._known:
            self._effort.spend(0.5 + 0.1 * len(case.places))
            mark = len(self._proven)
            self._known[key] = ()
            self._proven.append(key)
            if found := self._compared(case, wide):
                for assumed in self._proven[mark:]:
                    del self._known[assumed]
                del self._proven[mark:]
                self._known[key] = found
        return self._known[key]

    def _compared(self, case: Case, wide: Place) -> Differences:
        if self._depth > MAX_NESTING:
            raise ExhaustedError
        self._depth += 1
        try:
            if case.values is not None and all(fits(self.wide, value, wide) for value in case.values):
                return ()
            found: dict[Difference, None] = {}
            if "type" in wide.schema:
                allowed = kinds_named(wide.schema["type"])
                if excess := case.kinds - allowed:
                    found[Difference(Rule.TYPE, f"{wide.pointer}/type", kinds_said(excess))] = None
                    if case.kinds == EVERY or case.kinds.isdisjoint(allowed):
                        return tuple(found)
                    case = case.within(allowed)
            for keyword in wide.schema:
                if keyword in ASSERTIONS and keyword not in PART_OF_OTHERS:
                    found.update(dict.fromkeys(self._settled(case, wide, keyword)))
            return tuple(found)
        finally:
            self._depth -= 1

    def _settled(self, case: Case, wide: Place, keyword: str) -> Differences:
        """Says why values of a case may not keep to a keyword, in the words of the smallest cases that may not."""
        whole = self._checked(case, wide, keyword)
        if not whole:
            return ()
        pending, found, parts = [(case, whole)], {}, 0
        while pending:
            part, differences = pending.pop()
            parts += len(part.parts)
            if parts > MAX_PARTS:
                return whole
            if not part.parts:
                found.update(dict.fromkeys(differences))
            alive = [one for one in part.parts if not one.is_empty]
            pending.extend((one, why) for one in alive if (why := self._checked(one, wide, keyword)))
        return tuple(found)

    def _checked(self, case: Case, wide: Place, keyword: str) -> Differences:
        """Applies the rule for a keyword to a case as it is."""
        if case.kinds.isdisjoint(CONCERNED[keyword]):
            return ()
        self._effort.spend(0.4 + 0.1 * len(case.places))
        if keyword not in READS_SIBLINGS and any(
            keyword in place.words and self._sameness.same_keyword(place, wide, keyword) for place in case.places
        ):
            return ()
        if case.values is not None and keyword in LEAVES and self._all_fit(case, wide, keyword):
            return ()
        if keyword in OPAQUE:
            return undecided(wide.pointer, keyword, "this keyword is not compared")
        if keyword in LIMITS:
            return LIMITS[keyword](case, wide, keyword)
        return CHECKS[keyword](self, case, wide, keyword)

    def _all_fit(self, case: Case, wide: Place, keyword: str) -> bool:
        """Whether all values that a case can hold fit a leaf keyword."""
        values = case.values or ()
        self._effort.spend(0.1 * len(values))
        return all(self.wide.leaves.fit(value, keyword, wide.schema[keyword]) for value in values)
