"""Budgets: what a task may still spend, what its calls get of it, and why it has to stop. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshwright.agents.inputs import RAISED
from meshwright.agents.models.model import Message, Prompt, estimated_tokens
from meshwright.agents.models.untrusted import instructions_of, text_of
from meshwright.agents.state import RunState
from meshwright.core.errors import BudgetExceededError, PermissionDeniedError
from meshwright.gen.agents.v1.step_event_pb2 import BudgetNotice, Delegation
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    FinishReason,
    TaskRequest,
)

MAX_OUTPUT = 4_096
LEAST_CHILD_TOKENS = 512
MIN_TOKENS, MAX_TOKENS, DEFAULT_TOKENS = 512, 32_768, 8_192
MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 1, 25, 10
MAX_MICROS = RAISED["cost_budget_micros"]
MAX_TOOL_CALLS = 1_000
NEAR = 0.8
"""Watchers are told when so much of a limit is used up."""
BYTES_A_TOKEN = 2
"""Text and code have three to five; a bound on money must not be a guess."""
TOKENS_A_MESSAGE = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """A task's limits.

    Attributes:
        steps: Rounds.
        tokens: In and out, children's included.
        micros: Millionths of a US dollar, children's included; 0: no limit.
        tool_calls: Children's included; 0: no limit.
    """

    steps: int
    tokens: int
    micros: int = 0
    tool_calls: int = 0

    @classmethod
    def of(cls, request: TaskRequest, raised: Mapping[str, int]) -> "Budget":
        """Reads the limits of an accepted request, and those that a person has raised since."""

        def limit(name: str) -> int:
            asked: int = getattr(request, name)
            return max(asked, raised.get(name, 0))

        micros = limit("cost_budget_micros") if request.cost_budget_micros else 0
        return cls(limit("max_steps"), limit("token_budget"), micros, request.max_tool_calls)

    def left(self, state: RunState) -> int:
        """Tokens that are left."""
        return max(0, self.tokens - state.tokens)

    def micros_left(self, state: RunState) -> int:
        """Money that is neither spent nor set aside, in millionths of a US dollar; of use where there is a limit."""
        return max(0, self.micros - state.usage.cost_micros - state.account.reserved)

    def exhausted(self, state: RunState) -> FinishReason.ValueType | None:
        """Says why no further model call may be made, if so."""
        if state.tokens >= self.tokens:
            return FINISH_REASON_TOKEN_BUDGET_EXCEEDED
        if self.micros and not self.micros_left(state):
            return FINISH_REASON_COST_BUDGET_EXCEEDED
        if state.step >= self.steps:
            return FINISH_REASON_MAX_STEPS
        return None

    def overspent(self, state: RunState) -> FinishReason.ValueType | None:
        """Says what more was spent of than the task had, if so: a provider counts only afterwards."""
        if state.tokens > self.tokens:
            return FINISH_REASON_TOKEN_BUDGET_EXCEEDED
        if self.micros and state.usage.cost_micros > self.micros:
            return FINISH_REASON_COST_BUDGET_EXCEEDED
        return None

    def least(self, state: RunState, instructions: str, messages: Iterable[Message]) -> int:
        """Returns the smallest budget of tokens with which a prompt gets any answer."""
        return state.tokens + said_of(instructions, messages) + 1

    def room(self, state: RunState, instructions: str, messages: Iterable[Message]) -> int:
        """Returns how many tokens an answer may have; 0: the prompt alone would break the budget."""
        return min(MAX_OUTPUT, max(0, self.left(state) - said_of(instructions, messages)))

    def allowance(self, state: RunState, children: int, tokens: int, micros: int) -> "Allowance":
        """Returns what the calls of one answer may take, which itself took `tokens` and `micros`.

        Each child gets as much as the task keeps for itself: its share is set aside, and what it leaves is free when it
        ends.

        Args:
            state: Before the answer.
            children: How many of the calls are delegations.
            tokens: Of the answer.
            micros: Its cost, in place of what was set aside for it.
        """
        held = state.account.model_call
        free = max(0, self.micros_left(state) + (held.micros if held else 0) - micros)
        parts = children + 1
        calls = max(0, self.tool_calls - state.usage.tool_calls)
        tokens_each = min(MAX_TOKENS, (self.left(state) - tokens) // parts)
        share = Budget(0, tokens_each, free // parts, calls // parts)
        return Allowance(self, share, free - children * share.micros, calls - children * share.tool_calls)

    def used(
        self, state: RunState, time_used: float, *, tokens: int = 0, micros: int = 0, steps: int = 0
    ) -> dict[str, float]:
        """Returns how much of each limit is used up, by its name in a BudgetNotice; 1 is all of it.

        Args:
            state: As it was journaled.
            time_used: Of the task's time.
            tokens: Spent since.
            micros: Spent since.
            steps: Begun since.
        """
        used = {"tokens": (state.tokens + tokens) / self.tokens, "steps": (state.step + steps) / self.steps}
        if self.micros:
            used["cost"] = (state.usage.cost_micros + micros) / self.micros
        if self.tool_calls:
            used["tool_calls"] = state.usage.tool_calls / self.tool_calls
        used["time"] = time_used
        return used

    def spent(self, state: RunState) -> float:
        """Returns how much of tokens and money is used up, whichever is more; 1 is all of it."""
        tokens = state.tokens / self.tokens
        return max(tokens, state.usage.cost_micros / self.micros) if self.micros else tokens


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why no model call can be made.

    Attributes:
        reason: Which budget lacks something.
        shared: The budget that lacks it, as people call it, where other tasks share it; empty: it is the task's own.
        total: What the budget has to be for the next call, in its own unit; 0: that is not known.
    """

    reason: FinishReason.ValueType
    shared: str = ""
    total: int = 0

    @property
    def error(self) -> BudgetExceededError | None:
        """Names a budget that the task does not know of itself; None: the reason says it."""
        if not self.shared:
            return None
        advice = "raise it, or try again when tasks beside this one have ended"
        return BudgetExceededError(f"{self.shared} has too little left for a further step: {advice}")


@dataclass(slots=True)
class Allowance:
    """What the calls of one answer may take: tools from what the task keeps, each child its share."""

    _budget: Budget
    _share: Budget
    _micros: int
    _calls: int

    def take(self, tool: str, micros: int) -> None:
        """Sets aside a tool call.

        Raises:
            BudgetExceededError: Too little is left for it.
        """
        if self._budget.tool_calls and self._calls < 1:
            raise BudgetExceededError(f"all {self._budget.tool_calls} tool calls of the task are made: answer without")
        if self._budget.micros and micros > self._micros:
            message = f"{tool} costs {micros} micros and {self._micros} are left: answer without it"
            raise BudgetExceededError(message)
        self._micros -= micros
        self._calls -= 1

    def grant(self, delegation: Delegation) -> None:
        """Writes a child's share into its delegation.

        Raises:
            PermissionDeniedError: It would be too little.
        """
        share, budget = self._share, self._budget
        if share.tokens < LEAST_CHILD_TOKENS:
            raise PermissionDeniedError("too little of the token budget is left for another agent")
        if budget.micros and not share.micros:
            raise PermissionDeniedError("too little of the cost budget is left for another agent")
        if budget.tool_calls and not share.tool_calls:
            raise PermissionDeniedError("too few tool calls are left for another agent")
        delegation.granted_tokens = share.tokens
        delegation.granted_cost_micros = share.micros if budget.micros else 0
        delegation.granted_tool_calls = share.tool_calls if budget.tool_calls else 0


def said_of(instructions: str, messages: Iterable[Message]) -> int:
    """Guesses the tokens of a prompt, its tools aside."""
    return estimated_tokens(instructions) + sum([estimated_tokens(message.text) for message in messages])


def notices(state: RunState, used: Mapping[str, float]) -> list[BudgetNotice]:
    """Returns what watchers have not been told of: a limit that comes near, or is reached."""
    told = state.account.noticed
    return [
        BudgetNotice(limit=name, used_fraction=share)
        for name, share in used.items()
        if share >= NEAR and (told.get(name, 0) < NEAR or share >= 1 > told[name])
    ]


def most_input_tokens(prompt: Prompt) -> int:
    """Bounds the tokens that a provider will count for a prompt as it is sent: where money counts, no guess."""
    calls = [call for message in prompt.messages for call in message.calls]
    texts = [instructions_of(prompt)]
    texts += [message.call_id + text_of(message, prompt.boundary) for message in prompt.messages]
    texts += [call.call_id + call.tool + json.dumps(call.arguments) for call in calls]
    texts += [tool.name + tool.description + json.dumps(tool.parameters) for tool in prompt.tools]
    texts += [json.dumps(prompt.output_schema)] if prompt.output_schema else []
    size = sum(len(text.encode(errors="replace")) for text in texts)
    return size // BYTES_A_TOKEN + TOKENS_A_MESSAGE * (len(texts) + 1)
