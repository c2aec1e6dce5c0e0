"""A model as one that may be chosen: with its name, its limits and its breaker."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import structlog

from meshwright.agents.models.estimate import input_tokens
from meshwright.agents.models.model import Model, Prompt
from meshwright.core import telemetry
from meshwright.core.breaker import Breaker, Circuit

log = structlog.get_logger("models")
ModelClass = Literal["", "fast", "best"]
TIMEOUT_S = 120.0
TRIAL_GRACE_S = 5.0
LEAST_OUTPUT = 256
"""Tokens that a model's window must have beside the prompt for an answer."""


class Build(Protocol):
    """Makes models."""

    def __call__(self, spec: str, *, timeout_s: float) -> Model:
        """Makes the model that a spec names, with a bound for each of its calls."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can take; 0: as much as it is asked for.

    Attributes:
        context_window: Tokens of prompt and answer together.
        max_output: Tokens of an answer.
        timeout_s: Seconds for its turn: every try of one call and the pauses between them.
    """

    context_window: int = 0
    max_output: int = 0
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be chosen.

    Attributes:
        name: What requests, rules, metrics and Health call it; unique in its process.
        model: The model.
        breaker: Whether it works.
        kind: What it is good for: `fast`, `best`, or empty where nobody said.
        limits: What it can take.
    """

    name: str
    model: Model
    breaker: Breaker
    kind: ModelClass = ""
    limits: Limits = Limits()

    def holds(self, prompt_tokens: int) -> bool:
        """Whether its window has room for a prompt and an answer."""
        window = self.limits.context_window
        return not window or prompt_tokens + LEAST_OUTPUT <= window

    def fitted(self, prompt: Prompt) -> Prompt:
        """Returns the prompt with no more room for the answer than this model has."""
        limits, least = self.limits, prompt.max_output_tokens
        if limits.max_output:
            least = min(least, limits.max_output)
        if limits.context_window:
            least = min(least, max(1, limits.context_window - input_tokens(prompt)))
        return prompt if least == prompt.max_output_tokens else replace(prompt, max_output_tokens=least)


def title(model: Model) -> str:
    """Names a model that nobody has named."""
    return model.provider if model.provider == model.name else f"{model.provider}:{model.name}"


def candidate(
    model: Model,
    name: str = "",
    *,
    kind: ModelClass = "",
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Candidate:
    """Makes a model one that may be chosen, with a breaker that tells of itself.

    Args:
        model: The model.
        name: Its name; by default `provider:model`.
        kind: What it is good for.
        limits: What it can take.
        clock: Returns seconds that never go back.
    """
    limits = limits or Limits()
    name = name or title(model)
    return Candidate(name, model, Breaker(clock, limits.timeout_s + TRIAL_GRACE_S, told_of(name)), kind, limits)


def told_of(name: str) -> Callable[[Circuit, str], None]:
    """Returns what tells of a model's circuit: a metric and a line in the log."""
    telemetry.MODEL_CIRCUIT.labels(name).set(Circuit.CLOSED)

    def tell(state: Circuit, cause: str) -> None:
        telemetry.MODEL_CIRCUIT.labels(name).set(state)
        log.warning("model_circuit", model=name, state=state.word, cause=cause)

    return tell


def listed(candidates: Sequence[Candidate]) -> str:
    """Lists names, for messages."""
    return ", ".join(one.name for one in candidates)
