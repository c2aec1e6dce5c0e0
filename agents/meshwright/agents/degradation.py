"""Degradation: what a task gives where it cannot give what it should, in four named levels. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshwright.agents.models.model import Prompt
from meshwright.agents.outage import Outage
from meshwright.agents.result import OUT_OF_BUDGET, WORDS, End
from meshwright.agents.state import RunState
from meshwright.core.errors import ModelRejectedError, ModelUnavailableError, RateLimitedError
from meshwright.gen.agents.v1.step_event_pb2 import (
    DEGRADATION_LEVEL_PLAIN_WORD,
    DEGRADATION_LEVEL_SAFE_ERROR,
    DEGRADATION_LEVEL_STAND_IN,
    DEGRADATION_LEVEL_WITHOUT_TOOLS,
    NOTICE_KIND_DEGRADED,
    DegradationLevel,
    RunnerNotice,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    FINISH_REASON_DEGRADED,
    FINISH_REASON_ERROR,
    BudgetAction,
)

SAFE = "no answer is possible: whoever runs this agent finds the reason in its log"


@dataclass(frozen=True, slots=True)
class Less:
    """How a task ends instead, and what is told of it; no notice: it ends as it would."""

    end: End
    notice: RunnerNotice | None = None


def less_of(end: End, state: RunState, outage: Outage, action: BudgetAction.ValueType, recalled: str = "") -> Less:
    """Says how a task ends whose agent gives less instead of failing.

    Args:
        end: How it would end.
        state: What it has so far.
        outage: What its agent does.
        action: What its request wants at the end of a budget.
        recalled: An answer to the same question from before; it goes before the agent's own words.

    Returns:
        Level 1 (stand-in) where no model answers for now, level 2 (plain word) where a budget is used up, level 4 (safe
        error) where the models refuse for good. Everything else ends as it would.
    """
    if not outage.is_degrading:
        return Less(end)
    if end.reason in OUT_OF_BUDGET and action != BUDGET_ACTION_FAIL:
        partial = state.partial_output
        output = joined(WORDS[end.reason], partial) if partial else ""  # where there is nothing, every result says so
        return Less(replace(end, output=output), told(DEGRADATION_LEVEL_PLAIN_WORD, WORDS[end.reason]))
    if end.reason != FINISH_REASON_ERROR or end.error is None:
        return Less(end)
    if isinstance(end.error, ModelUnavailableError | RateLimitedError):
        source = "an answer from before stands in" if recalled else "the agent's own words stand in"
        output = joined(recalled or outage.text, state.text)
        notice = told(DEGRADATION_LEVEL_STAND_IN, f"no model answers ({end.error.reason}): {source}")
        return Less(End(FINISH_REASON_DEGRADED, output=output), notice)
    if isinstance(end.error, ModelRejectedError):
        notice = told(DEGRADATION_LEVEL_SAFE_ERROR, f"the models refuse the request ({end.error.reason})")
        return Less(replace(end, error=type(end.error)(SAFE)), notice)
    return Less(end)


def without_what_is_down(prompt: Prompt, state: RunState, outage: Outage) -> Prompt:
    """Takes those tools out of a prompt that cannot be reached, where the agent gives less: level 3."""
    if not outage.is_degrading or not state.down:
        return prompt
    return replace(prompt, tools=tuple(tool for tool in prompt.tools if tool.name not in state.down))


def notice_of_what_is_down(state: RunState, outage: Outage) -> RunnerNotice | None:
    """Tells which tools the task goes on without; None: there is nothing new to tell."""
    if not outage.is_degrading or state.down <= state.without:
        return None
    names = ", ".join(sorted(state.down))
    return told(DEGRADATION_LEVEL_WITHOUT_TOOLS, f"cannot be reached: {names}; the task goes on without")


def notice_of_what_is_missing(missing: Iterable[str]) -> RunnerNotice:
    """Tells which tools, `name@version`, a task begins without, since the registry cannot be asked for them."""
    names = ", ".join(sorted(missing))
    return told(DEGRADATION_LEVEL_WITHOUT_TOOLS, f"the registry does not answer: the task goes on without {names}")


def told(level: DegradationLevel.ValueType, detail: str) -> RunnerNotice:
    """Makes the notice of a level."""
    return RunnerNotice(kind=NOTICE_KIND_DEGRADED, level=level, detail=detail)


def joined(words: str, rest: str) -> str:
    """Puts words before what there is."""
    return f"{words}\n\n{rest}" if rest else words
