"""A job: what a task of a chaos agent is to do, written as its prompt, and what its answer must be."""

import json
from dataclasses import dataclass
from typing import Literal

Word = Literal["look", "mark", "send", "post", "ask"]
CHILD = "-child"
UNKNOWN = "unknown"
"""Stands in an answer for a call of which nobody knows whether it ran: only `send` and `post` may bring it."""
LATE = "late"
"""Stands in an answer for a call that took longer than it may: its host was stopped, or busy. No promise is broken."""
RISKY = ("send", "post")
HOLD = ".hold"
"""While a file of the evidence's name with this at its end is there, models take their time."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one task is to do, step by step.

    Attributes:
        name: Also the id of its task; unique in a scenario.
        into: File that takes the evidence.
        plan: A word a step: `look` is pure, `mark` idempotent, `send` neither, `post` a `send` that runs in another
            agent's process, `ask` delegates, at most once.
        pace_s: How long each model call and each tool call takes.
        below: The plan of the task that `ask` delegates.
    """

    name: str
    into: str
    plan: tuple[Word, ...]
    pace_s: float = 0.05
    below: tuple[Word, ...] = ()

    @classmethod
    def read(cls, prompt: str) -> "Job":
        """Reads a prompt."""
        name, into, plan, pace_s, below = json.loads(prompt)
        return cls(name, into, tuple(plan), pace_s, tuple(below))

    @property
    def prompt(self) -> str:
        """The job as a prompt; short, since tasks have few tokens."""
        return json.dumps([self.name, self.into, self.plan, self.pace_s, self.below])

    @property
    def child(self) -> "Job":
        """What `ask` delegates."""
        return Job(f"{self.name}{CHILD}", self.into, self.below, self.pace_s)

    @property
    def family(self) -> tuple["Job", ...]:
        """The job and, where it delegates, its child."""
        return (self, self.child) if "ask" in self.plan else (self,)

    def answer(self, heard: list[str]) -> str:
        """Writes the final answer from what the steps brought."""
        return f"{self.name}: {' '.join(heard)}"

    def is_right(self, answer: str) -> bool:
        """Whether an answer holds the outcome of every step."""
        name, _, rest = answer.partition(": ")
        heard = rest.split(" ")
        if name != self.name or len(heard) != len(self.plan):
            return False
        return all(self._is_outcome(step, said) for step, said in enumerate(heard))

    def _is_outcome(self, step: int, said: str) -> bool:
        if self.plan[step] == "ask":
            return self.child.is_right(unfolded(said))
        is_risky = self.plan[step] in RISKY
        return said in (outcome(self.name, step), LATE) or (said == UNKNOWN and is_risky)


def outcome(name: str, step: int) -> str:
    """What a step brings: it names its job and its step."""
    return f"{name}.{step}"


def folded(answer: str) -> str:
    """Writes a child's answer as one word."""
    return answer.replace(": ", "=").replace(" ", "+")


def unfolded(word: str) -> str:
    """Turns the word back into the answer."""
    return word.replace("=", ": ").replace("+", " ")
