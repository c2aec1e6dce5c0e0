"""References and logic: whether all that a case holds keep to the schemas that a schema applies to the value itself."""

from dataclasses import replace

from meshwright.registry.compat.case import Case
from meshwright.registry.compat.document import Place
from meshwright.registry.compat.literal import kinds_said
from meshwright.registry.compat.prover import Prover
from meshwright.registry.compat.rule import Difference, Differences, Rule, undecided


def reference(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`$ref`."""
    referred = prover.wide.referred(wide)
    if referred is None:
        return undecided(wide.pointer, keyword, "it is not clear where it leads")
    return prover.holds(case, referred)


def every(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`allOf`."""
    return tuple(difference for one in wide.listed(keyword) for difference in prover.holds(case, one))


def some(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`anyOf`."""
    attempts = {}
    for member in near(prover, case, wide, keyword):
        attempts[member] = prover.holds(undivided(case), member)
        if not attempts[member]:
            return ()
    return nearest(case, wide, keyword, attempts)


def one(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`oneOf`: one alternative holds everything, and none of the others anything."""
    members = near(prover, case, wide, keyword)
    attempts = {member: prover.holds(undivided(case), member) for member in members}
    for member in members:
        others = (other for other in members if other is not member)
        if not attempts[member] and all(is_excluded(prover, case, other) for other in others):
            return ()
    return nearest(case, wide, keyword, attempts)


def undivided(case: Case) -> Case:
    """Returns a case that is held against each alternative as it is: it is split before that, not within."""
    return replace(case, choices=()) if case.choices else case


def near(prover: Prover, case: Case, wide: Place, keyword: str) -> list[Place]:
    """Returns the alternatives that some value of a case might fit."""
    return [member for member in wide.listed(keyword) if not prover.disjoint(case, member)]


def nearest(case: Case, wide: Place, keyword: str, attempts: dict[Place, Differences]) -> Differences:
    """Explains by the one alternative that can be meant, where there is only one."""
    if len(attempts) == 1:
        (differences,) = attempts.values()
        if differences:
            return differences
    return (Difference(Rule.UNION_MEMBER, f"{wide.pointer}/{keyword}", kinds_said(case.kinds)),)


def is_excluded(prover: Prover, case: Case, wide: Place) -> bool:
    """Whether it is sure that no value of a case fits a schema."""
    return any(prover.same(out, wide) for out in case.excluded) or prover.disjoint(case, wide)


def none(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`not`."""
    if is_excluded(prover, case, wide.at(keyword)):
        return ()
    return undecided(wide.pointer, keyword, "what it rules out is compared only where it is the same")


def conditional(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`if`, `then` and `else`: under the same condition branch by branch, else both branches for all values."""
    branches = [word for word in ("then", "else") if word in wide.words]
    for place in case.places:
        if keyword in place.words and prover.same(place.at(keyword), wide.at(keyword)):
            found: list[Difference] = []
            for word in branches:
                ours = [place.at(word)] if word in place.words else []
                found.extend(prover.holds(case.and_also(ours), wide.at(word)))
            return tuple(found)
    if not any(prover.holds(case, wide.at(word)) for word in branches):
        return ()
    return undecided(wide.pointer, keyword, "conditions are compared only where they are the same")
