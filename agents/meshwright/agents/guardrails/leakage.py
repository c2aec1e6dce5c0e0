"""Leakage: the agent's instructions, or the canary in them, come out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.agents.guardrails.normalise import Normal

WINDOW = 8
"""Words of the instructions, one after the other, that make a hit."""
STRIDE = 4
LEAST_HITS = 2
"""Hits; so about twelve words in a row, or two places of eight."""


@dataclass(frozen=True)
class Leakage:
    """Stops the agent's own instructions from coming out, word by word, also where they were encoded.

    Attributes:
        canary: Whether a line with a random word is added to the instructions: one hit on it is proof. It costs the
            tokens of that line with every call of the model.
        action: What follows.
        points: Where it stands.
        name: In the journal.
    """

    canary: bool = False
    action: Action = "block"
    points: Sequence[Point] = ("output", "tool_arguments")
    name: str = "leakage"

    def check(self, subject: Subject) -> Verdict:
        """Compares a text with the instructions."""
        if subject.canary and subject.canary in subject.normal.text:
            return Verdict(self.action, "the text holds the canary of the agent's instructions")
        windows = windows_of(subject.instructions)
        words = subject.normal.words
        near = [window.text for window in windows if window.inner <= words]
        if not near:
            return ALLOW
        text = " ".join(subject.normal.tokens)
        if sum(window in text for window in near) < min(LEAST_HITS, len(windows)):
            return ALLOW
        return Verdict(self.action, "the text repeats the agent's instructions")


class Window(NamedTuple):
    """A run of words.

    Attributes:
        text: All of them.
        inner: Those but the first and the last, of which a part is enough: a text that lacks one does not hold the run.
    """

    text: str
    inner: frozenset[str]


@lru_cache(maxsize=64)
def windows_of(instructions: str) -> tuple[Window, ...]:
    """Returns runs of `WINDOW` words of an agent's instructions, none where they are shorter than two of them."""
    words = Normal(instructions).tokens
    if len(words) < 2 * WINDOW:
        return ()
    runs = [words[at : at + WINDOW] for at in range(0, len(words) - WINDOW + 1, STRIDE)]
    return tuple(Window(" ".join(run), frozenset(run[1:-1])) for run in runs)
