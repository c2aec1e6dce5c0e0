r"""Patterns: regular expressions that nobody can make slow, on the engine of JSON Schema. Pure.

It takes one pass, linear in the length of a text, whatever stands in it. It has neither look-around nor
back-references, says whether and not where, and means ASCII by `\d`, `\w` and `\s`.
"""

import jsonschema_rs

MAX_MEMORY = 2**20
"""Bytes that a compiled expression may take."""
ENGINE = jsonschema_rs.RegexOptions(size_limit=MAX_MEMORY)
"""For validators of schemas with patterns."""


class Pattern:
    """A compiled regular expression.

    Args:
        source: As it is written.

    Raises:
        jsonschema_rs.ValidationError: It is none, or too large.
    """

    def __init__(self, source: str) -> None:
        self._validator = jsonschema_rs.Draft202012Validator({"pattern": source}, pattern_options=ENGINE)

    def is_in(self, text: str) -> bool:
        """Whether it fits somewhere in a text.

        Raises:
            UnicodeEncodeError: The text holds half a surrogate pair.
        """
        return self._validator.is_valid(text)
