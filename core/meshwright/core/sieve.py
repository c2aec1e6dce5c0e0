"""A sieve: tells in one quick pass that a text holds none of some forms, so that nobody looks for them. Pure."""

from functools import cached_property

from meshwright.core.pattern import Pattern


class Sieve:
    r"""Forms of which a text has to hold one before a rule looks closer.

    `\d`, `\w` and `\s` mean ASCII to a `Pattern` and more to `re`: a sieve for something that is written with them
    spells out what it means, since it may let too much pass and never too little.

    Args:
        forms: Regular expressions with neither look-around nor back-references.

    Attributes:
        source: All of them as one.
    """

    def __init__(self, *forms: str) -> None:
        self.source = "|".join(forms)

    @classmethod
    def before(cls, *sieves: "Sieve") -> "Sieve":
        """Makes one that lets pass what any of some others does: a text without anything is looked at once."""
        return cls(*(sieve.source for sieve in sieves))

    @cached_property
    def _pattern(self) -> Pattern:
        return Pattern(self.source)

    def may_pass(self, text: str) -> bool:
        """Whether a text may hold one of the forms; half a surrogate pair is not looked at, and passes."""
        try:
            return self._pattern.is_in(text)
        except UnicodeEncodeError:
            return True
