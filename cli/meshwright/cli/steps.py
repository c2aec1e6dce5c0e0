"""Steps drawn as they happen: one line an event, children indented under their parents."""

import json
import time

from rich.console import Console
from rich.text import Text

from meshwright.cli.output import dollars, harmless
from meshwright.cli.question import commands, sentence, word
from meshwright.core.canonical import from_struct
from meshwright.gen.agents.v1.step_event_pb2 import (
    GUARDRAIL_ACTION_ALLOW,
    GUARDRAIL_ACTION_BLOCK,
    RESERVATION_STATE_CHARGED,
    GuardrailAction,
    GuardrailPoint,
    NoticeKind,
    StepEvent,
    ToolOutcome,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    FinishReason,
    TaskResponse,
    TaskStatus,
)

LONGEST = 100
ASKS = "?"
REPORT_S = 1.0


class Steps:
    """Draws one task's stream.

    Args:
        console: Where to.
        is_verbose: Says of every answer why its model was asked.
    """

    def __init__(self, console: Console, *, is_verbose: bool = False) -> None:
        self._console = console
        self._is_verbose = is_verbose
        self._agents: dict[str, str] = {}
        self._reported: dict[str, float] = {}

    def draw(self, event: StepEvent) -> None:
        """Draws one event; of passing frames a gap, and a call's progress once a second."""
        depth, inner = unwrapped(event)
        is_shown = inner.HasField("gap") or (inner.HasField("progress") and self._is_due(inner.progress.call_id))
        if event.sequence == 0 and not is_shown:
            return
        if inner.HasField("started"):
            self._agents[inner.task_id] = inner.started.agent_id
        told = described(inner)
        if told is None:
            return
        sign, style, words = told
        if self._is_verbose and inner.llm_call.routed_because:
            words = f"{words}  chosen: {inner.llm_call.routed_because}"
        line = Text(f"{event.sequence or '':4} ")
        line.append("   " * depth)
        line.append(f"{sign} ", style)
        line.append(f"{self._agents.get(inner.task_id, ''):<13}", "bold" if depth == 0 else "")
        line.append(harmless(words if sign == ASKS else shortened(words)), style if style == "red" else "")
        self._console.print(line, highlight=False, soft_wrap=True)

    def _is_due(self, call_id: str) -> bool:
        now = time.monotonic()
        is_due = now - self._reported.get(call_id, -REPORT_S) >= REPORT_S
        if is_due:
            self._reported[call_id] = now
        return is_due


def unwrapped(event: StepEvent) -> tuple[int, StepEvent]:
    """Returns how many tasks below the watched one an event is of, and the event itself."""
    depth = 0
    while event.HasField("child"):
        depth, event = depth + 1, event.child.event
    return depth, event


def described(event: StepEvent) -> tuple[str, str, str] | None:
    """Returns sign, style and words of an event; None: nothing worth a line."""
    describe = DESCRIBED.get(event.WhichOneof("event") or "")
    return describe(event) if describe else None


def started(event: StepEvent) -> tuple[str, str, str]:
    """Describes a task's beginning."""
    pins = ", ".join(event.started.tool_pins)
    return "▶", "cyan", f"starts with {pins}" if pins else "starts"


def planned(event: StepEvent) -> tuple[str, str, str]:
    """Describes a model's answer."""
    call = event.llm_call
    tokens = call.usage.input_tokens + call.usage.output_tokens
    plan = f"plans {len(call.planned_calls)} calls" if call.planned_calls else "answers"
    spent = f"from the cache, saved {call.usage.saved_tokens} tokens" if call.cached else f"{tokens} tokens"
    return "●", "blue", f"{plan}  ({call.model}, {spent}, {call.latency_ms} ms)"


def called(event: StepEvent) -> tuple[str, str, str]:
    """Describes what is about to be called."""
    arguments = json.dumps(from_struct(event.tool_call.arguments, "arguments"), ensure_ascii=False)
    return "→", "yellow", f"{event.tool_call.tool} {arguments}"


def delegated(event: StepEvent) -> tuple[str, str, str]:
    """Describes work handed on."""
    asked = event.delegation
    return "↳", "magenta", f"asks {asked.agent_id}, with up to {asked.granted_tokens} tokens"


def compacted(event: StepEvent) -> tuple[str, str, str]:
    """Describes that the conversation was shortened."""
    tokens = event.context_compacted
    return "≈", "cyan", f"conversation shortened from about {tokens.from_tokens} to {tokens.to_tokens} tokens"


def noted(event: StepEvent) -> tuple[str, str, str]:
    """Describes what the machinery did."""
    kind = NoticeKind.Name(event.notice.kind).removeprefix("NOTICE_KIND_").lower().replace("_", " ")
    return "!", "yellow", f"{kind}: {event.notice.detail} (attempt {event.attempt})"


def guarded(event: StepEvent) -> tuple[str, str, str] | None:
    """Describes what a guardrail said; that all is well is no news."""
    verdict = event.guardrail
    if verdict.action == GUARDRAIL_ACTION_ALLOW:
        return None
    action = GuardrailAction.Name(verdict.action).removeprefix("GUARDRAIL_ACTION_").lower()
    point = GuardrailPoint.Name(verdict.point).removeprefix("GUARDRAIL_POINT_").lower().replace("_", " ")
    words = f"guardrail {verdict.rule}: {action} at {point}" + (f": {verdict.reason}" if verdict.reason else "")
    return ("✗", "red", words) if verdict.action == GUARDRAIL_ACTION_BLOCK else ("!", "yellow", words)


def corrected(event: StepEvent) -> tuple[str, str, str]:
    """Describes why an answer was handed back to the model."""
    reason = event.correction.reason.lower().replace("_", " ")
    return "↺", "yellow", f"answer handed back: {reason}: {event.correction.text}"


def reserved(event: StepEvent) -> tuple[str, str, str] | None:
    """Describes money that counts as spent without an answer; what is set aside and settled goes on unseen."""
    reservation = event.reservation
    if reservation.state != RESERVATION_STATE_CHARGED:
        return None
    lost = f"US$ {dollars(reservation.cost_micros)} count as spent on {reservation.model}"
    return "!", "yellow", f"{lost}: its answer was lost with a worker"


def missed(event: StepEvent) -> tuple[str, str, str]:
    """Describes events that do not exist any more."""
    gap = event.gap
    return "!", "yellow", f"events {gap.from_sequence} to {gap.to_sequence} are gone"


def asked(event: StepEvent) -> tuple[str, str, str]:
    """Describes a question to a person, and the commands that decide, each on a line of its own."""
    pending = event.input_requested
    lines = (f"{sentence(pending.prompt)} Decide with one of", *commands(event.task_id, pending))
    return ASKS, "yellow", "\n       ".join(lines)


def warned(event: StepEvent) -> tuple[str, str, str]:
    """Describes a limit that comes near."""
    return "!", "yellow", f"{event.budget.used_fraction:.0%} of its {event.budget.limit.replace('_', ' ')} are used up"


def resolved(event: StepEvent) -> tuple[str, str, str]:
    """Describes what a person decided."""
    decision = event.input_resolved
    return "✓", "green", f"{decision.decided_by or 'nobody'}: {word(decision.decision)} {decision.reason}"


def reported(event: StepEvent) -> tuple[str, str, str]:
    """Describes how far a call has come."""
    fraction, message = event.progress.fraction, event.progress.message
    return "⋯", "yellow", f"{fraction:.0%}  {message}" if fraction >= 0 else message or "at work"


def result_of(event: StepEvent) -> tuple[str, str, str]:
    """Describes a tool's outcome."""
    result = event.tool_result
    outcome = ToolOutcome.Name(result.outcome).removeprefix("TOOL_OUTCOME_").lower()
    if result.HasField("error"):
        return "✗", "red", f"{outcome}: {result.error.message}"
    replayed = ", replayed" if result.replayed else ""
    return "←", "green", f"{outcome}  ({result.latency_ms} ms{replayed})"


def ended(event: StepEvent) -> tuple[str, str, str]:
    """Describes a task's end."""
    result = event.result
    status = TaskStatus.Name(result.status).removeprefix("TASK_STATUS_").lower()
    reason = FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_").lower()
    facts = f"{result.steps_used} steps, {result.tokens_used} tokens, {result.duration_ms} ms, attempt {result.attempt}"
    if result.HasField("error"):
        return "✗", "red", f"{status}: {result.error.message}  ({facts})"
    return "■", "green", f"{status} ({shortfall(result) or reason}): {facts}"


def shortfall(result: TaskResponse) -> str:
    """Says why a COMPLETED task has less than a whole answer; empty: it has one, or has not ended so."""
    if result.status != TASK_STATUS_COMPLETED or result.finish_reason == FINISH_REASON_STOP:
        return ""
    reason = FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_").lower()
    return f"{'no' if result.unanswered else 'partial'} answer: {reason}"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Returns one line of bounded length; one that is cut says so."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


DESCRIBED = {
    "started": started,
    "llm_call": planned,
    "tool_call": called,
    "progress": reported,
    "tool_result": result_of,
    "delegation": delegated,
    "guardrail": guarded,
    "context_compacted": compacted,
    "correction": corrected,
    "reservation": reserved,
    "notice": noted,
    "budget": warned,
    "input_requested": asked,
    "input_resolved": resolved,
    "gap": missed,
    "result": ended,
}
"""How each kind of event is told. A child's is told as its own, indented; `delta` and `heartbeat` are not drawn."""
