"""What an answer has to look like: a schema, a length, patterns that must not come. Pure."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.registry.schema import Schema, explained


@dataclass(frozen=True)
class OutputSchema:
    """The answer is JSON that fits a schema.

    Attributes:
        schema: JSON Schema 2020-12.
        action: What follows where it does not.
        name: In the journal.

    Raises:
        InvalidRequestError: The schema is none, or goes beyond the limits of schemas.
    """

    schema: dict[str, Any]
    action: Action = "block"
    name: str = "output_schema"
    points: Sequence[Point] = field(default=("output",), init=False)
    is_whole: ClassVar[bool] = True
    _compiled: Schema = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", Schema(self.schema))

    def check(self, subject: Subject) -> Verdict:
        """Reads the answer and holds it against the schema."""
        try:
            value = json.loads(subject.text)
        except (ValueError, RecursionError):
            return Verdict(self.action, "the answer is no JSON")
        violations = self._compiled.violations(value)
        return (
            Verdict(self.action, f"the answer does not fit its schema: {explained(violations)}")
            if violations
            else ALLOW
        )


@dataclass(frozen=True)
class Length:
    """The answer has a length.

    Attributes:
        least: Characters.
        most: Characters.
        action: What follows where it has another; `redact` cuts the answer off at `most`.
        name: In the journal.
    """

    least: int = 0
    most: int = 2**20
    action: Action = "block"
    name: str = "length"
    points: Sequence[Point] = field(default=("output",), init=False)
    is_whole: ClassVar[bool] = True

    def check(self, subject: Subject) -> Verdict:
        """Counts characters."""
        length = len(subject.text)
        if self.least <= length <= self.most:
            return ALLOW
        why = f"{length} characters: {self.least} to {self.most} are allowed"
        if self.action == "redact":
            return Verdict("redact" if length > self.most else "block", why, subject.text[: self.most])
        return Verdict(self.action, why)


@dataclass(frozen=True)
class Patterns:
    """What must not come: competitors' names, internal hosts, a form of words.

    Attributes:
        patterns: Regular expressions, with neither look-around nor back-references: the engine takes linear time,
            whatever text meets them. `(?i)` at the beginning leaves capitals out of account.
        action: What follows; `redact` takes out each sentence or line in which one is found.
        points: Where it stands.
        name: In the journal.

    Raises:
        SetupError: A pattern is none.
    """

    patterns: Sequence[str]
    action: Action = "redact"
    points: Sequence[Point] = ("output",)
    name: str = "patterns"
    _free: Schema = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            free = Schema({"not": {"anyOf": [{"pattern": pattern} for pattern in self.patterns]}})
        except InvalidRequestError as error:
            raise SetupError(f"patterns: {error.message}") from None
        object.__setattr__(self, "_free", free)

    def check(self, subject: Subject) -> Verdict:
        """Looks for the patterns."""
        if not self._free.violations(subject.text):
            return ALLOW
        pieces = _SENTENCES.findall(subject.text) if self.action == "redact" else []
        clean = ["[redacted] " if self._free.violations(piece) else piece for piece in pieces]
        if self._free.violations("".join(clean)):  # it spans sentences
            clean = ["[redacted]"]
        return Verdict(self.action, "the text holds a pattern that must not come", "".join(clean))


_SENTENCES = re.compile(r"[^.!?\n]*(?:[.!?\n]+\s*|$)")
