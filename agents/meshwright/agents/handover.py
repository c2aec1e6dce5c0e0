"""Handing over: a task asks a person where a signal calls for one, and waits for what they say."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from meshwright.agents import escalation
from meshwright.agents.agent import Agent
from meshwright.agents.escalation import ESCALATING, Escalates, Raised
from meshwright.agents.models.model import Call, ToolSpec
from meshwright.agents.parking import wait_for_people
from meshwright.agents.run import Run
from meshwright.core.canonical import to_value
from meshwright.core.errors import RejectedError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK, StepEvent, ToolResult
from meshwright.gen.agents.v1.task_pb2 import (
    ESCALATION_SIGNAL_ASKED_FOR_PERSON,
    ESCALATION_SIGNAL_FAILED_ATTEMPTS,
    ESCALATION_SIGNAL_LOW_CONFIDENCE,
    ESCALATION_SIGNAL_SENTIMENT,
    EscalationSignal,
)

log = structlog.get_logger("handover")
JUDGE_S = 10.0
T = TypeVar("T", bool, float)


async def is_handed_over(run: Run, agent: Agent) -> bool:
    """Asks a person where a signal calls for one, once for each signal; returns whether a person was asked.

    Raises:
        Parked: The person has not decided yet.
    """
    if not run.state.asking:  # a worker before may have asked
        raised = await signal_of(run, agent.escalation)
        if raised is None:
            return False
        pending = escalation.asked(
            raised, run.task_id, run.prompt, run.state.messages, agent.policy, now_ms=run.store_ms
        )
        await run.append(f"escalation:{raised.signal}", run.event(input_requested=pending))
        log.info("escalated", task_id=run.task_id, signal=EscalationSignal.Name(raised.signal))
    await wait_for_people(run)
    return True


async def signal_of(run: Run, rules: Escalates) -> Raised | None:
    """Looks for a signal of which nobody was told yet; a prompt that an agent wrote is nobody's wish or mood."""
    if is_due(run, rules, ESCALATION_SIGNAL_FAILED_ATTEMPTS) and (
        raised := escalation.failing(rules, run.state.signals)
    ):
        return raised
    if run.state.step or run.record.parent_id:
        return None
    prompt = run.request.prompt
    if is_due(run, rules, ESCALATION_SIGNAL_ASKED_FOR_PERSON):
        is_wanted = await judged(rules.wish, prompt, otherwise=False)
        if raised := escalation.wish(is_wanted=is_wanted):
            return raised
    if is_due(run, rules, ESCALATION_SIGNAL_SENTIMENT):
        return escalation.mood(rules, await judged(rules.judge, prompt, otherwise=0.0))
    return None


def is_due(run: Run, rules: Escalates, signal: EscalationSignal.ValueType) -> bool:
    """Whether a signal is looked for, and was not raised before in this task."""
    return rules.looks_for(signal) and signal not in run.state.signals.raised


async def judged(judge: Callable[[str], T | Awaitable[T]], prompt: str, *, otherwise: T) -> T:
    """Asks a judge about a prompt; one that fails, or takes too long, has seen nothing."""
    try:
        async with asyncio.timeout(JUDGE_S):
            found = judge(prompt)
            return type(otherwise)(await found if inspect.isawaitable(found) else found)
    except Exception:
        log.warning("judge_failed", exc_info=True)
        return otherwise


def specs(agent: Agent) -> list[ToolSpec]:
    """Returns the tool by which a model says how sure it is, where that is looked for."""
    return [ESCALATING] if agent.escalation.looks_for(ESCALATION_SIGNAL_LOW_CONFIDENCE) else []


def confided(run: Run, agent: Agent, step: int, call: Call) -> StepEvent:
    """Turns what a model says of its confidence into a question to a person, or into the advice to go on.

    Raises:
        InvalidRequestError: It says nothing that can be understood.
        RejectedError: A person was asked for that before.
    """
    raised = escalation.confidence(agent.escalation, call)
    if raised is None:
        advice = ToolResult(call_id=call.call_id, outcome=TOOL_OUTCOME_OK, result=to_value("sure enough: go on"))
        return run.event(step, tool_result=advice)
    if raised.signal in run.state.signals.raised:
        raise RejectedError("a person was asked before: go on with what they said, as well as you can")
    pending = escalation.asked(
        raised,
        run.task_id,
        run.prompt,
        run.state.messages,
        agent.policy,
        now_ms=run.store_ms,
        call_id=call.call_id,
    )
    return run.event(step, input_requested=pending)
