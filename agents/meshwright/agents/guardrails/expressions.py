"""Regular expressions of rules: tried only where their words stand, compiled when that is first so."""

import re
from functools import cache


@cache
def compiled(source: str) -> re.Pattern[str]:
    """Compiles an expression once. All of them are constants of the rules."""
    return re.compile(source)


def groups(words: str) -> tuple[frozenset[str], ...]:
    """Reads groups of words, of which a text must hold one each before an expression is tried: `a b | c d`."""
    return tuple(frozenset(group.split()) for group in words.split("|"))
