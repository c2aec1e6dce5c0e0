"""Regular expressions of rules: tried only near where their words stand, compiled when that is first so. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

REACH = 400
"""Characters before and after a word, within which an expression that holds it begins and ends."""


@cache
def compiled(source: str) -> re.Pattern[str]:
    """Compiles an expression once. All of them are constants of the rules."""
    return re.compile(source)


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression, and what a text must hold for it to be tried.

    Attributes:
        groups: Of each group, at least one word is in the text.
        source: Regular expression over normalised text; linear.
    """

    groups: tuple[frozenset[str], ...]
    source: str

    @classmethod
    def of(cls, words: str, source: str) -> "Expression":
        """Writes one: `a b | c d` are two groups of words."""
        return cls(tuple(frozenset(group.split()) for group in words.split("|")), source)

    def is_possible(self, words: frozenset[str]) -> bool:
        """Whether a text with these words can hold the expression."""
        return not any(map(words.isdisjoint, self.groups))

    def matches(self, text: str, words: frozenset[str]) -> Iterator[re.Match[str]]:
        """Finds the expression in a text in which it is possible.

        Args:
            text: Normalised.
            words: The words of the text.
        """
        held = [group & words for group in self.groups]
        rarest = min(held, key=lambda group: sum(map(text.count, group)))
        places = sorted(at for word in rarest for at in occurrences(text, word))
        for begin, end in windows(((at, at) for at in places), REACH):
            yield from compiled(self.source).finditer(text, begin, end)


class Index:
    """Expressions by their words: those that a text cannot hold cost nothing.

    Args:
        expressions: In the order in which they are tried.
    """

    def __init__(self, expressions: Iterable[Expression]) -> None:
        self._expressions = tuple(expressions)
        self._by_word: dict[str, list[int]] = {}
        for place, expression in enumerate(self._expressions):
            for word in min(expression.groups, key=len):
                self._by_word.setdefault(word, []).append(place)

    def possible(self, words: frozenset[str]) -> list[int]:
        """Returns the places of expressions that a text with these words can hold."""
        places = {place for word in self._by_word.keys() & words for place in self._by_word[word]}
        return sorted(place for place in places if self._expressions[place].is_possible(words))


def occurrences(text: str, word: str) -> Iterator[int]:
    """Finds where a word stands, also inside of others."""
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def windows(places: Iterable[tuple[int, int]], reach: int) -> Iterator[tuple[int, int]]:
    """Returns the surroundings of places, in their order; those that overlap are one."""
    begin = end = -1
    for first, last in places:
        if begin < 0:
            begin, end = max(0, first - reach), last + reach
        elif first - reach <= end:
            end = max(end, last + reach)
        else:
            yield begin, end
            begin, end = first - reach, last + reach
    if begin >= 0:
        yield begin, end
