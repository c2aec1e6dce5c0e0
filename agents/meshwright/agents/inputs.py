"""Questions to people: what is asked, what may be decided, what follows from silence. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meshwright.agents.models.model import Call
from meshwright.core.canonical import from_struct, from_value, to_struct
from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import digest
from meshwright.gen.agents.v1.step_event_pb2 import InputResolved, ToolCall
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_FAIL,
    DECISION_RAISE_BUDGET,
    DECISION_REJECT,
    DECISION_RETRY,
    DECISION_SKIP,
    INPUT_KIND_APPROVAL,
    INPUT_KIND_BUDGET,
    INPUT_KIND_ESCALATION,
    INPUT_KIND_QUESTION,
    INPUT_KIND_UNKNOWN_OUTCOME,
    INPUT_PRIORITY_HIGH,
    INPUT_PRIORITY_NORMAL,
    Decision,
    InputKind,
    InputPriority,
    PendingInput,
)
from meshwright.gen.agents.v1.task_service_pb2 import ResolveInputRequest
from meshwright.registry.schema import Schema, explained

Approval = Literal["never", "when_tainted", "always"]
Silence = Literal["refuse", "fail"]
STRICTNESS: tuple[Approval, ...] = ("never", "when_tainted", "always")
LONGEST_S = 30 * 86_400
ASK_PERSON = "ask.person"
MAX_REASON = 1_024
RAISED = {"token_budget": 1_000_000, "cost_budget_micros": 10**12, "max_steps": 100}
"""Limits that a person may raise, and how far."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How an agent asks people.

    Attributes:
        within_s: How long a question stays open.
        on_silence: What follows when it lapses: what was asked for is refused, or the task fails.
        is_four_eyes: Whether somebody else than who asked for the task decides, but for the agent's own questions.
    """

    within_s: float
    on_silence: Silence
    is_four_eyes: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of question offers."""

    kind: InputKind.ValueType
    choices: Sequence[Decision.ValueType]
    refusal: Decision.ValueType
    priority: InputPriority.ValueType


APPROVAL = Kind(
    INPUT_KIND_APPROVAL, (DECISION_APPROVE, DECISION_REJECT, DECISION_EDIT), DECISION_REJECT, INPUT_PRIORITY_NORMAL
)
UNKNOWN = Kind(
    INPUT_KIND_UNKNOWN_OUTCOME, (DECISION_RETRY, DECISION_SKIP, DECISION_FAIL), DECISION_SKIP, INPUT_PRIORITY_HIGH
)
QUESTION = Kind(INPUT_KIND_QUESTION, (DECISION_ANSWER, DECISION_FAIL), DECISION_REJECT, INPUT_PRIORITY_NORMAL)
BUDGET = Kind(INPUT_KIND_BUDGET, (DECISION_RAISE_BUDGET, DECISION_FAIL), DECISION_REJECT, INPUT_PRIORITY_HIGH)
SHARED_BUDGET = Kind(INPUT_KIND_BUDGET, (DECISION_RETRY, DECISION_FAIL), DECISION_REJECT, INPUT_PRIORITY_HIGH)
PASSAGE = Kind(INPUT_KIND_APPROVAL, (DECISION_APPROVE, DECISION_FAIL), DECISION_FAIL, INPUT_PRIORITY_NORMAL)
"""A guardrail asks whether a prompt may go in, or an answer out."""
ESCALATION = Kind(
    INPUT_KIND_ESCALATION, (DECISION_ANSWER, DECISION_SKIP, DECISION_FAIL), DECISION_SKIP, INPUT_PRIORITY_NORMAL
)
STRANDED = Kind(INPUT_KIND_ESCALATION, (DECISION_RETRY, DECISION_FAIL), DECISION_RETRY, INPUT_PRIORITY_HIGH)


def asked(
    kind: Kind, task_id: str, prompt: str, policy: Policy, *, now_ms: int, call_id: str = "", turn: str = ""
) -> PendingInput:
    """Writes a question; the same one after a crash has the same id.

    Args:
        kind: What is asked for.
        task_id: Task that asks.
        prompt: For people.
        policy: The agent's.
        now_ms: Store time.
        call_id: Call that waits for it.
        turn: Tells repetitions of the same question apart.
    """
    is_failing = policy.on_silence == "fail"
    pending = PendingInput(
        input_id="in-" + digest("input", task_id, call_id, str(kind.kind), turn)[:24],
        kind=kind.kind,
        prompt=prompt,
        call_id=call_id,
        priority=kind.priority,
        choices=kind.choices,
        on_expiry=DECISION_FAIL if is_failing else kind.refusal,
        four_eyes=policy.is_four_eyes and kind.kind != INPUT_KIND_QUESTION,
    )
    pending.expire_time.FromMilliseconds(now_ms + int(policy.within_s * 1000))
    return pending


def about(pending: PendingInput, intent: ToolCall) -> PendingInput:
    """Adds the call that a question is about, exactly as it will run."""
    pending.tool, pending.tool_version = intent.tool, intent.version
    pending.arguments.CopyFrom(intent.arguments)
    pending.intent_digest = intent.intent_digest
    return pending


def question(pending: PendingInput, call: Call) -> PendingInput:
    """Adds what an agent wants to know.

    Raises:
        InvalidRequestError: It asks nothing, or the schema of the answer is none.
    """
    text, schema = call.arguments.get("question"), call.arguments.get("answer_schema")
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{ASK_PERSON} needs a question", fields={"arguments/question": "is required"})
    pending.prompt = text
    if schema is not None:
        Schema(schema)
        pending.answer_schema.CopyFrom(to_struct(schema))
    return pending


def decision(pending: PendingInput, request: ResolveInputRequest, principal: str) -> InputResolved:
    """Turns a request into the decision that is journaled; edited arguments are held against their schema elsewhere.

    Raises:
        InvalidRequestError: It is none of the choices, or lacks what it needs.
    """
    if request.decision not in pending.choices:
        names = ", ".join(Decision.Name(choice).removeprefix("DECISION_") for choice in pending.choices)
        raise InvalidRequestError(
            f"the decision must be one of {names}", fields={"decision": f"must be one of {names}"}
        )
    resolved = InputResolved(
        input_id=pending.input_id,
        decision=request.decision,
        decided_by=principal,
        reason=request.reason[:MAX_REASON],
        intent_digest=pending.intent_digest,
    )
    if request.decision == DECISION_ANSWER:
        check_answer(pending, request)
        resolved.answer.CopyFrom(request.answer)
    if request.decision == DECISION_EDIT:
        if not request.HasField("edited_arguments"):
            raise InvalidRequestError("EDIT needs edited_arguments", fields={"edited_arguments": "is required"})
        edited = from_struct(request.edited_arguments, "edited_arguments")
        resolved.edited_arguments_json = json.dumps(edited, ensure_ascii=False)
    if request.decision == DECISION_RAISE_BUDGET:
        check_raise(pending, request)
        for name in RAISED:
            setattr(resolved, name, getattr(request, name))
    return resolved


def check_raise(pending: PendingInput, request: ResolveInputRequest) -> None:
    """Refuses new limits that are none.

    Raises:
        InvalidRequestError: None is given, or one is out of range, or no higher than it is.
    """
    given = {name: getattr(request, name) for name in RAISED}
    if not any(given.values()):
        message = "RAISE_BUDGET needs a new total: token_budget, cost_budget_micros or max_steps"
        raise InvalidRequestError(message, fields=dict.fromkeys(RAISED, "one of these is required"))
    problems = {name: f"must be 0..{RAISED[name]}" for name, value in given.items() if not 0 <= value <= RAISED[name]}
    limits = from_struct(pending.arguments, "arguments")
    low = {name: f"is {limits[name]} already" for name, value in given.items() if 0 < value <= limits.get(name, 0)}
    if low:
        told = ", ".join(f"{name} {problem}" for name, problem in low.items())
        raise InvalidRequestError(f"a raised budget is a new total, higher than before: {told}", fields=low)
    if problems:
        raise InvalidRequestError(f"the new limits are out of range: {', '.join(problems)}", fields=problems)


def check_answer(pending: PendingInput, request: ResolveInputRequest) -> None:
    """Holds an answer against the schema that was asked for.

    Raises:
        InvalidRequestError: Lists every violation.
    """
    if not request.HasField("answer"):
        raise InvalidRequestError("ANSWER needs an answer", fields={"answer": "is required"})
    is_text = request.answer.WhichOneof("kind") in (None, "string_value")
    if pending.kind == INPUT_KIND_ESCALATION and is_text and not request.answer.string_value.strip():
        raise InvalidRequestError("an empty answer is none", fields={"answer": "must not be empty"})
    if pending.HasField("answer_schema"):
        answer: Any = from_value(request.answer, "answer")
        violations = Schema(from_struct(pending.answer_schema, "answer_schema")).violations(answer)
        if violations:
            problems = {f"answer{violation.pointer}": violation.message for violation in violations}
            raise InvalidRequestError(f"the answer does not fit: {explained(violations)}", fields=problems)


def silence(pending: PendingInput) -> InputResolved:
    """The decision that nobody made in time."""
    return InputResolved(
        input_id=pending.input_id,
        decision=pending.on_expiry,
        reason="nobody answered in time",
        intent_digest=pending.intent_digest,
    )


def strictest(*rules: Approval) -> Approval:
    """Returns the rule that asks most often."""
    return max(rules, key=STRICTNESS.index)
