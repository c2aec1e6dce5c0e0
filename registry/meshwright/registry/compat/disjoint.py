"""Whether two cases, of two schemas, surely have no value in common. Pure."""

from meshwright.registry.compat.case import Case
from meshwright.registry.compat.fitting import fits
from meshwright.registry.compat.literal import OBJECT

MAX_DEPTH = 4
"""Levels of members and alternatives that are looked into."""


def disjoint(one: Case, other: Case, depth: int = 0) -> bool:
    """Whether it is sure that no value belongs to both; where it is not sure, no."""
    one.document.effort.spend(0.5)
    if one.kinds.isdisjoint(other.kinds):
        return True
    if none_fits(one, other) or none_fits(other, one):
        return True
    if depth >= MAX_DEPTH:
        return False
    if one.kinds & other.kinds == {OBJECT} and tell_apart(one, other, depth):
        return True
    return divided(one, other, depth) or divided(other, one, depth)


def none_fits(one: Case, other: Case) -> bool:
    """Whether one holds only values that are known, none of which fits the other."""
    if one.values is None:
        return False
    return all(any(fits(other.document, value, place) is False for place in other.places) for value in one.values)


def tell_apart(one: Case, other: Case, depth: int) -> bool:
    """Whether a member that must be there tells objects of both apart, as the tag of a tagged union does."""
    required = one.members.required | other.members.required
    return any(disjoint(one.member(name), other.member(name), depth + 1) for name in sorted(required))


def divided(one: Case, other: Case, depth: int) -> bool:
    """Whether each part of one has nothing in common with the other."""
    return bool(one.parts) and all(disjoint(part, other, depth + 1) for part in one.parts)
