"""How long a text may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshwright.agents.guardrails.guardrail import ALLOW, Point, Subject, Verdict

LONGEST: Mapping[Point, int] = {
    "input": 512 * 1024,
    "tool_arguments": 512 * 1024,
    "tool_result": 8 * 2**20,
    "output": 2**20,
}
"""Characters, by point."""


@dataclass(frozen=True)
class Size:
    """Blocks what is longer than a point takes; nothing that comes after it in a list has to read more.

    Attributes:
        longest: Characters, by point; a point that is not named has no bound.
        name: In the journal.
    """

    longest: Mapping[Point, int] = field(default_factory=lambda: LONGEST)
    name: str = "size"

    @property
    def points(self) -> Sequence[Point]:
        """Those that have a bound."""
        return tuple(self.longest)

    def check(self, subject: Subject) -> Verdict:
        """Counts characters."""
        most = self.longest[subject.point]
        if len(subject.text) <= most:
            return ALLOW
        return Verdict("block", f"{len(subject.text)} characters, of which {most} are allowed: send less")
