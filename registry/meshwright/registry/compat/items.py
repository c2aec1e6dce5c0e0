"""Arrays: whether all that a case holds keep to a schema's keywords for items. Pure."""

import math
from typing import Any

from meshwright.registry.compat.case import Case
from meshwright.registry.compat.document import Place
from meshwright.registry.compat.elements import rest_word
from meshwright.registry.compat.prover import Prover
from meshwright.registry.compat.rule import Difference, Differences, undecided


def prefix(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`prefixItems`."""
    known = case.items
    found: list[Difference] = []
    for index, one in enumerate(wide.listed(keyword)):
        if index < known.most:
            found.extend(prover.prove(known.at(index), one))
    return tuple(found)


def rest(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`items`, and `unevaluatedItems` where it says the same."""
    known = case.items
    start = len(wide.words.get("prefixItems", ()))
    found: dict[Difference, None] = {}
    for index in range(start, max(start, known.described) + 1):
        if index < known.most:
            found.update(dict.fromkeys(prover.prove(known.at(index), wide.at(keyword))))
    return tuple(found)


def unevaluated(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`unevaluatedItems`."""
    if "items" in wide.words:
        return ()
    if rest_word(wide):
        return rest(prover, case, wide, keyword)
    return undecided(wide.pointer, keyword, "which items other keywords describe is not compared")


def range_of(words: dict[str, Any]) -> tuple[float, float]:
    """Returns how many items may fit `contains`."""
    return words.get("minContains", 1), words.get("maxContains", math.inf)


def contains(prover: Prover, case: Case, wide: Place, keyword: str) -> Differences:
    """`contains` with its bounds: the same schema, and bounds within these."""
    low, high = range_of(wide.words)
    if low == 0 and high == math.inf:
        return ()
    for place in case.places:
        if keyword in place.words and prover.same(place.at(keyword), wide.at(keyword)):
            least, most = range_of(place.words)
            if least >= low and most <= high:
                return ()
    return undecided(wide.pointer, keyword, "how many items fit it is compared only where its schema is the same")
