"""Objects: whether all that a case holds keep to a schema's keywords for members. Pure."""

from collections.abc import Iterable

from meshwright.registry.compat.case import Case, case_of
from meshwright.registry.compat.document import Place
from meshwright.registry.compat.literal import STRING
from meshwright.registry.compat.members import CONDITIONAL, Members, Rest, plain_rest
from meshwright.registry.compat.prover import Prover
from meshwright.registry.compat.rule import Difference, Differences, Rule, quoted, undecided

REST_WORDS = frozenset(("additionalProperties", "unevaluatedProperties"))
TEXT = frozenset((STRING,))


def described(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`properties`."""
    known = case.members
    found: list[Difference] = []
    for name, one in wide.named(keyword).items():
        schemas = known.at(name)
        differences = prover.prove(schemas, one)
        if differences and not schemas and one.schema is not False:
            differences = (Difference(Rule.DECLARED, one.pointer, quoted(name)),)
        found.extend(differences)
    return tuple(found)


def patterned(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`patternProperties`."""
    known = case.members
    found: list[Difference] = []
    for pattern, one in wide.named(keyword).items():
        for name in known.names:
            if case.document.matches(pattern, name):
                found.extend(prover.prove(known.at(name), one))
        found.extend(matching(prover, known, pattern, one))
    return tuple(found)


def matching(prover: Prover, known: Members, pattern: str, wide: Place) -> Differences:
    """Looks at members that are known only by a pattern."""
    if same := known.matching(pattern):
        return prover.prove(same, wide)
    for rest in known.rests:
        hidden = [name for name in rest.names if prover.wide.matches(pattern, name)]
        schemas = [(rest.schema,), *rest.patterns.values(), *map(known.at, hidden)]
        if not any(prover.prove(one, wide) for one in schemas):
            return ()
    return prover.prove((), wide) and (Difference(Rule.PATTERN_PROPERTY, wide.pointer, quoted(pattern)),)


def additional(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`additionalProperties`."""
    return others(prover, case.members, plain_rest(wide, keyword))


def unevaluated(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`unevaluatedProperties`: as additional ones where it is sure which members other keywords describe."""
    if "additionalProperties" in wide.words:
        return ()
    names: set[str] = set()
    patterns: set[str] = set()
    is_sure = True
    for place in prover.wide.conjuncts([wide]) or ():
        if place.pointer != wide.pointer and not REST_WORDS.isdisjoint(place.words):
            return ()  # that one has described all members already
        names.update(place.words.get("properties", ()))
        patterns.update(place.words.get("patternProperties", ()))
        is_sure = is_sure and CONDITIONAL.isdisjoint(place.words)
    rest = Rest(frozenset(names), dict.fromkeys(patterns, ()), wide.at(keyword))
    found = others(prover, case.members, rest)
    if found and not is_sure:
        return undecided(wide.pointer, keyword, "which members conditional keywords describe is not compared")
    return found


def others(prover: Prover, known: Members, wide: Rest) -> Differences:
    """Looks at members that the wide schema does not describe."""
    if wide.schema.is_trivial:
        return ()
    found = list(undescribed(prover, known, wide, known.names))
    attempts = [remaining(prover, known, rest, wide) for rest in known.rests]
    if not attempts:
        rule = Rule.ADDITIONAL if wide.schema.schema is False else Rule.ADDITIONAL_VALUES
        attempts = [prover.prove((), wide.schema) and (Difference(rule, wide.schema.pointer),)]
    return (*found, *min(attempts, key=len))


def undescribed(prover: Prover, known: Members, wide: Rest, names: Iterable[str]) -> Differences:
    """Looks at members that only the narrow schema describes."""
    found: list[Difference] = []
    for name in names:
        if not wide.covers(prover.wide, name):
            continue
        schemas = known.at(name)
        differences = prover.prove(schemas, wide.schema)
        if differences and wide.schema.schema is False:
            pointer = schemas[0].pointer if schemas else wide.schema.pointer
            differences = (Difference(Rule.PROPERTY, pointer, quoted(name)),)
        found.extend(differences)
    return tuple(found)


def remaining(prover: Prover, known: Members, rest: Rest, wide: Rest) -> Differences:
    """Looks at members that neither schema describes, by one of the narrow schema's words for them."""
    is_closed = wide.schema.schema is False
    found = list(undescribed(prover, known, wide, rest.names - set(known.names)))
    for pattern, schemas in rest.patterns.items():
        if pattern not in wide.patterns:
            differences = prover.prove(schemas, wide.schema)
            if differences and is_closed:
                pointer = schemas[0].pointer if schemas else wide.schema.pointer
                differences = (Difference(Rule.PATTERN_ALLOWED, pointer, quoted(pattern)),)
            found.extend(differences)
    differences = prover.prove((rest.schema,), wide.schema)
    if differences and is_closed:
        differences = (Difference(Rule.ADDITIONAL, wide.schema.pointer),)
    return (*found, *differences)


def names(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`propertyNames`."""
    ours = [place.at(keyword) for place in case.places if keyword in place.words]
    differences = prover.holds(case_of(case.document, ours, TEXT), wide.at(keyword))
    return differences if ours else differences and (Difference(Rule.NAMES, f"{wide.pointer}/{keyword}"),)


def dependent_schemas(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`dependentSchemas`: what the narrow schema says on the same condition counts too."""
    ours = [place.named(keyword) for place in case.places if keyword in place.words]
    found: list[Difference] = []
    for name, one in wide.named(keyword).items():
        if case.members.may_have(name):
            found.extend(prover.holds(case.and_also(named[name] for named in ours if name in named), one))
    return tuple(found)
