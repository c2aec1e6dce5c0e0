"""A scenario: one way to break the mesh, and what must hold all the same."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setting:
    """How a scenario is to be played.

    Attributes:
        is_full: In full size, which takes minutes; else in a short form.
        seed: Of everything that is drawn by chance.
        folder: Its own, empty.
        tell: Takes a line for people: what is being done.
        mutant: A promise's mechanism that is taken out, to see whether the scenario notices; empty: none.
    """

    is_full: bool
    seed: int
    folder: Path
    tell: Callable[[str], None]
    mutant: str = ""

    def size(self, short: int, full: int) -> int:
        """Picks a number by size."""
        return full if self.is_full else short


@dataclass(slots=True)
class Row:
    """One row of the report.

    Attributes:
        size: What was done and how often: "100 kills of 5 kinds of processes".
        figures: What was measured, by name: {"lost": "0", "takeover p100": "2.4 s"}.
        broken: Promises that did not hold, one sentence each; empty: it passed.
        skipped: Why it could not be played here; empty: it was.
    """

    size: str
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    skipped: str = ""

    def check(self, is_kept: bool, promise: str) -> None:
        """Notes a promise that did not hold."""
        if not is_kept:
            self.broken.append(promise)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way to break the mesh.

    Attributes:
        name: On the command line: `kills`.
        title: In the report.
        play: Plays it.
        is_quick: Whether its short form is part of what runs when nothing is named.
    """

    name: str
    title: str
    play: Callable[[Setting], Awaitable[Row]]
    is_quick: bool = True
