"""Whether two schemas say the same by the same keywords, annotations aside. Pure."""

from typing import Any

from meshwright.registry.compat.document import (
    ASSERTIONS,
    LIST_BELOW,
    MAX_NESTING,
    NAMED_BELOW,
    ONE_BELOW,
    OPAQUE,
    Document,
    Place,
)
from meshwright.registry.compat.literal import frozen

IN_ANY_ORDER = frozenset(("enum", "required"))


class Sameness:
    """Compares parts of two schemas word by word, through references, recursive ones too.

    Args:
        narrow: One schema.
        wide: The other.
    """

    def __init__(self, narrow: Document, wide: Document) -> None:
        self._narrow = narrow
        self._wide = wide
        self._known: dict[tuple[str, str], bool] = {}
        self._proven: list[tuple[str, str]] = []

    def same(self, one: Place, other: Place, depth: int = 0) -> bool:
        """Whether two parts are the same; of what cannot be compared, no."""
        one, other = self._narrow.unwrapped(one), self._wide.unwrapped(other)
        if one.is_trivial or other.is_trivial:
            return one.is_trivial and other.is_trivial
        if not (isinstance(one.schema, dict) and isinstance(other.schema, dict)):
            return one.schema is other.schema
        self._narrow.effort.spend(0.1)
        key = (one.pointer, other.pointer)
        if key not in self._known:
            if depth > MAX_NESTING:
                return False
            self._narrow.effort.spend(0.6)
            mark = len(self._proven)
            self._known[key] = True  # of a part that contains itself: unless a difference turns up elsewhere
            self._proven.append(key)
            if not self._same_words(one, other, depth + 1):
                for assumed in self._proven[mark:]:
                    del self._known[assumed]
                del self._proven[mark:]
                self._known[key] = False
        return self._known[key]

    def _same_words(self, one: Place, other: Place, depth: int) -> bool:
        keywords = ASSERTIONS.intersection(one.words)
        if keywords != ASSERTIONS.intersection(other.words) or keywords & OPAQUE:
            return False
        return all(self.same_keyword(one, other, keyword, depth) for keyword in keywords)

    def same_keyword(self, one: Place, other: Place, keyword: str, depth: int = 0) -> bool:
        """Whether two schemas that have a keyword say the same by it."""
        if keyword == "$ref":
            targets = self._narrow.referred(one), self._wide.referred(other)
            return None not in targets and self.same(*targets, depth)  # type: ignore[arg-type]
        if keyword in ONE_BELOW:
            return self.same(one.at(keyword), other.at(keyword), depth)
        if keyword in LIST_BELOW:
            ours, theirs = one.listed(keyword), other.listed(keyword)
            return len(ours) == len(theirs) and all(self.same(a, b, depth) for a, b in zip(ours, theirs, strict=True))
        if keyword in NAMED_BELOW:
            our, their = one.named(keyword), other.named(keyword)
            return our.keys() == their.keys() and all(self.same(our[name], their[name], depth) for name in our)
        return keyword not in OPAQUE and said(one, keyword) == said(other, keyword)


def said(place: Place, keyword: str) -> Any:
    """Returns what a leaf keyword says, in a form to compare."""
    value = place.schema[keyword]
    if keyword in IN_ANY_ORDER:
        return frozenset(map(frozen, value))
    return frozen(value)
