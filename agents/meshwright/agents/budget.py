"""Budgets: what a task may still spend, and why it has to stop. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from meshwright.agents.models.model import Message, estimated_tokens
from meshwright.agents.state import RunState
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    FinishReason,
    TaskRequest,
)

MAX_OUTPUT = 4_096
LEAST_CHILD_TOKENS = 512
MIN_TOKENS, MAX_TOKENS, DEFAULT_TOKENS = 512, 32_768, 8_192
MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 1, 25, 10


@dataclass(frozen=True, slots=True)
class Budget:
    """A task's limits."""

    steps: int
    tokens: int

    @classmethod
    def of(cls, request: TaskRequest) -> "Budget":
        """Reads the limits of an accepted request."""
        return cls(request.max_steps, request.token_budget)

    def left(self, state: RunState) -> int:
        """Tokens that are left."""
        return max(0, self.tokens - state.tokens)

    def exhausted(self, state: RunState) -> FinishReason.ValueType | None:
        """Says why no further model call may be made, if so."""
        if state.tokens >= self.tokens:
            return FINISH_REASON_TOKEN_BUDGET_EXCEEDED
        if state.step >= self.steps:
            return FINISH_REASON_MAX_STEPS
        return None

    def overspent(self, state: RunState) -> bool:
        """Whether more was spent than the task had: a provider counts only afterwards."""
        return state.tokens > self.tokens

    def room(self, state: RunState, instructions: str, messages: Iterable[Message]) -> int:
        """Returns how many tokens an answer may have; 0: the prompt alone would break the budget."""
        said = estimated_tokens(instructions) + sum(estimated_tokens(message.text) for message in messages)
        return min(MAX_OUTPUT, max(0, self.left(state) - said))

    def share(self, state: RunState, children: int, spent: int) -> int:
        """Tokens for each of several children, after `spent` more of our own; 0: too little is left."""
        share = min(MAX_TOKENS, (self.left(state) - spent) // (children + 1))
        return share if share >= LEAST_CHILD_TOKENS else 0
