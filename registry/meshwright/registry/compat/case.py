"""What is known of the values that fit a schema: one case of it, and the cases that it falls into. Pure."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from meshwright.registry.compat.document import Document, Place
from meshwright.registry.compat.elements import Items
from meshwright.registry.compat.fitting import fits
from meshwright.registry.compat.literal import BOOLEAN, EVERY, NULL, frozen, kind_of
from meshwright.registry.compat.members import Members

MAX_PARTS = 64
"""Cases that one is split into while a single keyword is looked at."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`anyOf` or `oneOf`: which of its schemas a value fits is not known yet.

    Attributes:
        members: Its schemas.
        is_exclusive: Whether a value fits only one of them.
    """

    members: tuple[Place, ...]
    is_exclusive: bool


@dataclass(frozen=True)
class Case:
    """Values that fit several schemas at once. What it leaves unsaid only makes it hold more values.

    Attributes:
        document: Where the schemas stand.
        places: The schemas.
        kinds: Kinds that the values may be of.
        values: All values that it can hold, where they are few; None: no such list.
        choices: What it can still be split by.
        excluded: Schemas that none of its values fits.
    """

    document: Document
    places: tuple[Place, ...]
    kinds: frozenset[str]
    values: tuple[Any, ...] | None
    choices: tuple[Choice, ...]
    excluded: tuple[Place, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it holds no value."""
        return not self.kinds

    @cached_property
    def members(self) -> Members:
        """What is known of the members of its objects."""
        return Members(self.document, self.places)

    @cached_property
    def items(self) -> Items:
        """What is known of the items of its arrays."""
        return Items(self.document, self.places)

    def member(self, name: str) -> "Case":
        """Returns what a member's values can be, if it is there."""
        if name not in self._members:
            self._members[name] = case_of(self.document, self.members.at(name))
        return self._members[name]

    @cached_property
    def _members(self) -> dict[str, "Case"]:
        return {}

    @cached_property
    def key(self) -> Hashable:
        """What tells it from other cases of the same document."""
        values = None if self.values is None else tuple(map(frozen, self.values))
        places = frozenset(place.pointer for place in self.places)
        return places, self.kinds, values, frozenset(place.pointer for place in self.excluded)

    def said(self, keyword: str) -> list[Any]:
        """Returns what its schemas say by a keyword."""
        return [place.schema[keyword] for place in self.places if keyword in place.schema]

    def within(self, kinds: frozenset[str]) -> "Case":
        """Returns those of its values that are of certain kinds."""
        return case_of(self.document, self.places, kinds & self.kinds, self.values, self)

    def and_also(self, places: Iterable[Place], excluded: Iterable[Place] = ()) -> "Case":
        """Returns those of its values that fit more schemas, and not others."""
        found = case_of(self.document, (*self.places, *places), self.kinds, self.values, self)
        return replace(found, excluded=tuple(dict.fromkeys((*found.excluded, *excluded))))

    @cached_property
    def parts(self) -> list["Case"]:
        """Cases that hold all of its values together; none: it cannot be split, or into too many."""
        return list(self._parts())

    def _parts(self) -> Iterator["Case"]:
        if self.values is not None and len(self.values) > 1:
            if len(self.values) <= MAX_PARTS:
                for value in self.values:
                    yield case_of(self.document, self.places, frozenset((kind_of(value),)), (value,), self)
        elif len(self.kinds) > 1:
            for kind in sorted(self.kinds):
                yield self.within(frozenset((kind,)))
        elif self.choices:
            chosen, *others = self.choices
            rest = replace(self, choices=tuple(others))
            for member in chosen.members:
                unfit = [other for other in chosen.members if other is not member] if chosen.is_exclusive else []
                yield rest.and_also((member,), unfit)


def case_of(
    document: Document,
    places: Iterable[Place],
    kinds: frozenset[str] = EVERY,
    values: tuple[Any, ...] | None = None,
    source: Case | None = None,
) -> Case:
    """Puts together what is known of values that fit some schemas.

    Args:
        document: Where the schemas stand.
        places: The schemas.
        kinds: Only values of these.
        values: Only these values; None: any.
        source: The case that is narrowed: what it was split by already is not split again.
    """
    conjuncts = document.conjuncts(places)
    if conjuncts is None:
        return Case(document, (), frozenset(), (), (), ())
    document.effort.spend(0.7 + 0.1 * len(conjuncts))
    for place in conjuncts:
        kinds &= document.kinds(place)
    values = narrowed(document, conjuncts, kinds, values)
    if values is not None:
        kinds &= {kind_of(value) for value in values}
    old = {place.pointer for place in source.places} if source else set()
    new = [choice for place in conjuncts if place.pointer not in old for choice in choices_of(place)]
    pending = (*(source.choices if source else ()), *new)
    excluded = (*(source.excluded if source else ()), *(p.at("not") for p in conjuncts if "not" in p.words))
    return Case(document, conjuncts, kinds, values, pending, tuple(dict.fromkeys(excluded)))


def choices_of(place: Place) -> Iterator[Choice]:
    """Returns what a schema leaves open."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in place.words:
            members = tuple(place.listed(keyword))
            yield Choice(members, is_exclusive=keyword == "oneOf")


def narrowed(
    document: Document, places: tuple[Place, ...], kinds: frozenset[str], values: tuple[Any, ...] | None
) -> tuple[Any, ...] | None:
    """Lists the values that can fit, where a schema lists them, or their kinds have no more than three."""
    lists: list[Sequence[Any]] = [said for place in places if (said := document.values(place)) is not None]
    if values is not None:
        lists.append(values)
    if kinds <= {NULL, BOOLEAN}:
        lists.append(tuple(value for value in (None, False, True) if kind_of(value) in kinds))
    if not lists:
        return None
    shortest = min(lists, key=len)
    return tuple(
        value
        for value in shortest
        if kind_of(value) in kinds and all(fits(document, value, place) is not False for place in places)
    )
