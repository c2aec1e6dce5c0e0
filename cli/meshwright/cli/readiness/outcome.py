"""What looking at one item of the readiness list came to."""

from dataclasses import dataclass
from enum import StrEnum

from meshwright.core.facts import shortened

SEEN_BYTES = 240
"""How much is told of what was seen."""


class State(StrEnum):
    """How an item stands."""

    OK = "ok"
    MISSING = "missing"
    UNSEEN = "not seen"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of an item.

    Attributes:
        state: Whether it is as it should be; `UNSEEN` counts for neither.
        seen: What was seen, figures included.
        todo: What to do; empty: nothing.
    """

    state: State
    seen: str
    todo: str = ""

    @property
    def words(self) -> str:
        """What was seen and what to do, for people."""
        return f"{self.seen}; {self.todo}" if self.todo else self.seen


def good(seen: str) -> Outcome:
    """Says that an item is as it should be."""
    return Outcome(State.OK, plain(seen))


def missing(seen: str, todo: str) -> Outcome:
    """Says what an item lacks."""
    return Outcome(State.MISSING, plain(seen), todo)


def unseen(seen: str, todo: str) -> Outcome:
    """Says why an item could not be looked at, and what would let it be seen."""
    return Outcome(State.UNSEEN, plain(seen), todo)


def plain(text: str) -> str:
    """Puts what somebody else may have written on one line, cut."""
    return shortened(" ".join(text.split()), SEEN_BYTES)


def counted(many: int, noun: str) -> str:
    """Counts things: `1 agent`, `2 agents`."""
    return f"{many} {noun}" + "s" * (many != 1)


def few(names: list[str], most: int = 4) -> str:
    """Names the first of many things, and counts the others."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
