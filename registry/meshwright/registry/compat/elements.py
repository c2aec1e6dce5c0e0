"""What a case says about an array's items. Pure."""

import math

from meshwright.registry.compat.document import Document, Place
from meshwright.registry.compat.members import APPLYING


def rest_word(place: Place) -> str | None:
    """Returns the keyword that holds a schema for all items after `prefixItems`; None: there is none, or none plain."""
    if "items" in place.words:
        return "items"
    is_plain = "contains" not in place.words and APPLYING.isdisjoint(place.words)
    return "unevaluatedItems" if is_plain and "unevaluatedItems" in place.words else None


class Items:
    """The items of arrays that fit several schemas at once.

    Args:
        document: Where the schemas stand.
        places: The schemas.
    """

    def __init__(self, document: Document, places: tuple[Place, ...]) -> None:
        self._document = document
        self._prefixes = [(place.listed("prefixItems"), rest_word(place), place) for place in places]
        self.described = max((len(prefix) for prefix, _, _ in self._prefixes), default=0)
        """Index of the first item from which on all are alike."""
        self.least = max([0, *(place.words["minItems"] for place in places if "minItems" in place.words)])
        self.most = self._most([place.words["maxItems"] for place in places if "maxItems" in place.words])
        document.effort.spend(0.2 * (len(places) + self.described))

    def _most(self, said: list[float]) -> float:
        most = min([math.inf, *said])
        for index in range(self.described + 1):
            if index >= most:
                break
            if self._document.conjuncts(self.at(index)) is None:
                return index
        return most

    def at(self, index: int) -> tuple[Place, ...]:
        """Returns the schemas that an item must fit, if it is there."""
        self._document.effort.spend(0.2 * len(self._prefixes))
        found = []
        for prefix, word, place in self._prefixes:
            if index < len(prefix):
                found.append(prefix[index])
            elif word:
                found.append(place.at(word))
        return tuple(found)
