"""Keywords that bound a value by itself: whether a case is known to keep to them. Pure."""

import math
from collections.abc import Callable

from meshwright.registry.compat.case import Case
from meshwright.registry.compat.document import Place
from meshwright.registry.compat.literal import INTEGER, frozen
from meshwright.registry.compat.rule import Difference, Differences, Rule, quoted, undecided

Bound = tuple[float | int, bool]
"""A limit, and whether the limit itself is out."""
LENGTHS: dict[str, tuple[Rule, bool]] = {
    "minLength": (Rule.MIN_LENGTH, True),
    "maxLength": (Rule.MAX_LENGTH, False),
}


def enumerated(case: Case, wide: Place, keyword: str) -> Differences:
    """`enum` and `const`."""
    pointer = f"{wide.pointer}/{keyword}"
    if case.values is None:
        return (Difference(Rule.ENUM, pointer),)
    allowed = wide.schema["enum"] if keyword == "enum" else [wide.schema["const"]]
    listed = set(map(frozen, allowed))
    return tuple(
        Difference(Rule.ENUM_VALUE, pointer, quoted(value)) for value in case.values if frozen(value) not in listed
    )


def least(case: Case) -> Bound:
    """Returns the greatest lower limit that a case's numbers keep."""
    bounds = [(-math.inf, False)]
    bounds += [(limit, False) for limit in case.said("minimum")]
    bounds += [(limit, True) for limit in case.said("exclusiveMinimum")]
    return max(bounds)


def greatest(case: Case) -> Bound:
    """Returns the least upper limit that a case's numbers keep."""
    bounds = [(math.inf, True)]
    bounds += [(limit, False) for limit in case.said("maximum")]
    bounds += [(limit, True) for limit in case.said("exclusiveMaximum")]
    return min(bounds, key=lambda bound: (bound[0], not bound[1]))


def whole(bound: Bound, towards: int) -> Bound:
    """Moves a limit of integers to the nearest one that is in."""
    limit, is_out = bound
    if math.isinf(limit):
        return bound
    inside = math.ceil(limit) if towards > 0 else math.floor(limit)
    return (inside + towards if is_out and inside == limit else inside, False)


def minimum(case: Case, wide: Place, keyword: str) -> Differences:
    """`minimum` and `exclusiveMinimum`."""
    limit: Bound = (wide.schema[keyword], keyword == "exclusiveMinimum")
    kept = least(case)
    if case.kinds == {INTEGER}:
        limit, kept = whole(limit, 1), whole(kept, 1)
    return () if kept >= limit else (bound_differs(Rule.MINIMUM, wide, keyword, kept[0]),)


def maximum(case: Case, wide: Place, keyword: str) -> Differences:
    """`maximum` and `exclusiveMaximum`."""
    limit: Bound = (wide.schema[keyword], keyword == "exclusiveMaximum")
    kept = greatest(case)
    if case.kinds == {INTEGER}:
        limit, kept = whole(limit, -1), whole(kept, -1)
    is_kept = kept[0] < limit[0] or (kept[0] == limit[0] and kept[1] >= limit[1])
    return () if is_kept else (bound_differs(Rule.MAXIMUM, wide, keyword, kept[0]),)


def bound_differs(rule: Rule, wide: Place, keyword: str, kept: float) -> Difference:
    """Returns a difference in a limit."""
    pointer = f"{wide.pointer}/{keyword}"
    return Difference(rule, pointer, str(wide.schema[keyword]), "none" if math.isinf(kept) else f"{kept}")


def multiple(case: Case, wide: Place, keyword: str) -> Differences:
    """`multipleOf`: of integral ones, also where one divides the other; fractions are too inexact for that."""
    wanted = wide.schema[keyword]
    kept = [*case.said(keyword), *([1] if case.kinds == {INTEGER} else [])]
    is_kept = any(one == wanted for one in kept) or (
        isinstance(wanted, int) and any(isinstance(one, int) and one % wanted == 0 for one in kept)
    )
    return () if is_kept else (Difference(Rule.MULTIPLE, f"{wide.pointer}/{keyword}", str(wanted)),)


def length(case: Case, wide: Place, keyword: str) -> Differences:
    """`minLength` and `maxLength`."""
    rule, is_lower = LENGTHS[keyword]
    limit = wide.schema[keyword]
    said = case.said(keyword)
    kept: float = max([0, *said]) if is_lower else min([math.inf, *said])
    is_kept = kept >= limit if is_lower else kept <= limit
    return () if is_kept else (bound_differs(rule, wide, keyword, kept if said else math.inf),)


def pattern(case: Case, wide: Place, keyword: str) -> Differences:
    """`pattern`: the same one, or none."""
    said = case.said(keyword)
    if wide.schema[keyword] in said:
        return ()
    if said:
        return undecided(wide.pointer, keyword, "patterns are not compared unless they are equal")
    return (Difference(Rule.PATTERN, f"{wide.pointer}/{keyword}", quoted(wide.schema[keyword])),)


def formatted(case: Case, wide: Place, keyword: str) -> Differences:
    """`format`: the same one, or none."""
    said = case.said(keyword)
    if wide.schema[keyword] in said:
        return ()
    rule = Rule.OTHER_FORMAT if said else Rule.FORMAT
    return (Difference(rule, f"{wide.pointer}/{keyword}", quoted(wide.schema[keyword])),)


def item_count(case: Case, wide: Place, keyword: str) -> Differences:
    """`minItems` and `maxItems`."""
    known, limit = case.items, wide.schema[keyword]
    if keyword == "minItems":
        return () if known.least >= limit else (bound_differs(Rule.MIN_ITEMS, wide, keyword, known.least or math.inf),)
    return () if known.most <= limit else (bound_differs(Rule.MAX_ITEMS, wide, keyword, known.most),)


def unique(case: Case, wide: Place, keyword: str) -> Differences:
    """`uniqueItems`."""
    if not wide.schema[keyword] or any(case.said(keyword)) or case.items.most <= 1:
        return ()
    return (Difference(Rule.UNIQUE, f"{wide.pointer}/{keyword}"),)


def member_count(case: Case, wide: Place, keyword: str) -> Differences:
    """`minProperties` and `maxProperties`."""
    known, limit, said = case.members, wide.schema[keyword], case.said(keyword)
    if keyword == "minProperties":
        kept: float = max([0, len(known.required), *said])
        return () if kept >= limit else (bound_differs(Rule.MIN_PROPERTIES, wide, keyword, kept or math.inf),)
    closed = [len(rest.names) for rest in known.rests if rest.schema.schema is False and not rest.patterns]
    kept = min([math.inf, *closed, *said])
    return () if kept <= limit else (bound_differs(Rule.MAX_PROPERTIES, wide, keyword, kept),)


def required(case: Case, wide: Place, keyword: str) -> Differences:
    """`required`."""
    known = case.members.required
    return tuple(
        Difference(Rule.REQUIRED, f"{wide.pointer}/{keyword}/{index}", quoted(name))
        for index, name in enumerate(wide.schema[keyword])
        if name not in known
    )


def dependent_required(case: Case, wide: Place, keyword: str) -> Differences:
    """`dependentRequired`."""
    known = case.members
    found: list[Difference] = []
    for name, wanted in wide.schema[keyword].items():
        ours = {one for said in case.said(keyword) for one in said.get(name, ())} | known.required
        missing = [one for one in wanted if one not in ours and one != name]
        if missing and known.may_have(name):
            what = f"{quoted(name)} demands {', '.join(map(quoted, missing))}"
            found.append(Difference(Rule.DEPENDENT, f"{wide.pointer}/{keyword}", what))
    return tuple(found)


LimitRule = Callable[[Case, Place, str], Differences]
LIMITS: dict[str, LimitRule] = {
    "enum": enumerated,
    "const": enumerated,
    "minimum": minimum,
    "exclusiveMinimum": minimum,
    "maximum": maximum,
    "exclusiveMaximum": maximum,
    "multipleOf": multiple,
    "minLength": length,
    "maxLength": length,
    "pattern": pattern,
    "format": formatted,
    "minItems": item_count,
    "maxItems": item_count,
    "uniqueItems": unique,
    "minProperties": member_count,
    "maxProperties": member_count,
    "required": required,
    "dependentRequired": dependent_required,
}
