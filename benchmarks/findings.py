"""Findings: what was measured, as paired ratios, and what it is held against. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FEWEST_ROUNDS = 5
TOLERANCE = 1.25
"""How far beyond its recorded ratio a finding may be before the smoke run fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One measured figure over several rounds.

    Attributes:
        name: As in the baseline.
        what: The figure in words.
        unit: Of `ours` and `theirs`.
        ours: One value a round.
        theirs: What each round is held against; empty: `ours` is held against the goal itself.
        goal: Upper bound of the ratio, or of `ours` where there is no `theirs`; None: reported only.
        is_gated: Whether the smoke run holds it against the baseline.
        beside: Further figures, by name.
        unequal: In what the two sides differ.
    """

    name: str
    what: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    goal: float | None = None
    is_gated: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)
    unequal: str = ""

    @property
    def ratios(self) -> list[float]:
        """The rounds' ratios, or their values where there is nothing beside them."""
        if not self.theirs:
            return list(self.ours)
        return [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def median(self) -> float:
        """What the finding says."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """Whether the goal is met."""
        if self.goal is None:
            return "-"
        return "met" if self.median <= self.goal else "missed"

    def drift(self, baseline: Mapping[str, float]) -> float | None:
        """Returns how the median stands to the recorded one; None: nothing is recorded, or nothing is held to it."""
        recorded = baseline.get(self.name)
        return self.median / recorded if recorded and self.is_gated else None


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value below which a share of all values lies."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Returns the slope of the line through some points, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Writes median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
