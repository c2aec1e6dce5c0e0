"""Rounds: the sides of a comparison take turns in random order, so that what else the machine does hits all alike."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.findings import FEWEST_ROUNDS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Of each comparison, at least five.
        scale: Factor on the calls of a round.
        is_full: Whether the long benchmarks run too.
        rng: Orders and arrivals.
    """

    rounds: int = FEWEST_ROUNDS
    scale: int = 1
    is_full: bool = False
    rng: random.Random = field(default_factory=random.Random)

    async def interleaved(self, sides: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
        """Runs every side once to warm up, then in rounds; returns by side what its rounds brought."""
        for side in sides.values():
            await side()
        found: dict[str, list[T]] = {name: [] for name in sides}
        for _ in range(self.rounds):
            names = list(sides)
            self.rng.shuffle(names)
            for name in names:
                found[name].append(await sides[name]())
        return found
