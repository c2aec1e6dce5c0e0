"""Escalation: what calls for a person, by which rule, and what an agent's author may set about it. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from meshwright.agents import inputs
from meshwright.agents.brief import MOST_CHARS, brief
from meshwright.agents.models.model import Call, Message, ToolSpec
from meshwright.agents.sentiment import Judge, sentiment
from meshwright.agents.wish import Wish, wants_person
from meshwright.core.errors import InvalidRequestError, MeshError, RejectedError, SetupError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK, StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    ESCALATION_SIGNAL_ASKED_FOR_PERSON,
    ESCALATION_SIGNAL_FAILED_ATTEMPTS,
    ESCALATION_SIGNAL_HIGH_STAKES,
    ESCALATION_SIGNAL_LOW_CONFIDENCE,
    ESCALATION_SIGNAL_SENTIMENT,
    INPUT_PRIORITY_HIGH,
    TASK_STATUS_COMPLETED,
    EscalationSignal,
    PendingInput,
)

Signal = Literal["asked_for_person", "sentiment", "low_confidence", "failed_attempts"]
SIGNALS: Mapping[Signal, EscalationSignal.ValueType] = {
    "asked_for_person": ESCALATION_SIGNAL_ASKED_FOR_PERSON,
    "sentiment": ESCALATION_SIGNAL_SENTIMENT,
    "low_confidence": ESCALATION_SIGNAL_LOW_CONFIDENCE,
    "failed_attempts": ESCALATION_SIGNAL_FAILED_ATTEMPTS,
}
URGENT = frozenset({ESCALATION_SIGNAL_SENTIMENT, ESCALATION_SIGNAL_HIGH_STAKES})
"""Come before others in an inbox."""
ANSWERED_BY_PERSON = frozenset({ESCALATION_SIGNAL_ASKED_FOR_PERSON, ESCALATION_SIGNAL_SENTIMENT})
"""Here whoever gave the task turns to people: what a person answers is the task's answer, word by word."""
ASK_ESCALATION = "ask.escalation"
MAX_REASON = 1_000
ESCALATING = ToolSpec(
    ASK_ESCALATION,
    "Says how sure you are, before you answer or act. If you are not sure enough a person is asked, whose advice comes "
    "back, which may take days; else you are told to go on.",
    {
        "type": "object",
        "properties": {
            "confidence": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "How likely your answer is right",
            },
            "reason": {"type": "string", "minLength": 1, "description": "What you are not sure of, for the person"},
        },
        "required": ["confidence", "reason"],
        "additionalProperties": False,
    },
)


@dataclass(frozen=True, slots=True)
class Escalates:
    """When an agent calls for a person.

    Attributes:
        signals: Which of `asked_for_person`, `sentiment`, `low_confidence` and `failed_attempts` are looked for.
        min_confidence: Below it (0..1) what the agent says of itself calls for a person.
        max_failures: So many calls failed one after the other do.
        min_sentiment: Below it (-1..1) the prompt's sentiment does.
        wish: Says whether a prompt asks for a person, in place of the rule; may be a coroutine function, and has ten
            seconds.
        judge: Says how a prompt sounds, in place of the lexicon; likewise.
    """

    signals: Collection[Signal] = get_args(Signal)
    min_confidence: float = 0.4
    max_failures: int = 3
    min_sentiment: float = -0.75
    wish: Wish = wants_person
    judge: Judge = sentiment
    _looked_for: frozenset[EscalationSignal.ValueType] = field(init=False, repr=False, compare=False)

    def looks_for(self, signal: EscalationSignal.ValueType) -> bool:
        """Whether a signal is looked for."""
        return signal in self._looked_for

    def __post_init__(self) -> None:
        if isinstance(self.signals, str) or not set(self.signals) <= set(SIGNALS):
            raise SetupError(f"escalates: signals are some of {', '.join(SIGNALS)}, not {self.signals!r}")
        for name, least, most in (("min_confidence", 0, 1), ("max_failures", 1, 100), ("min_sentiment", -1, 1)):
            if not least <= getattr(self, name) <= most:
                raise SetupError(f"escalates: {name} must be {least}..{most}")
        object.__setattr__(self, "_looked_for", frozenset(SIGNALS[name] for name in self.signals))


@dataclass(frozen=True, slots=True)
class Raised:
    """A signal that was found.

    Attributes:
        signal: Which.
        reason: What is needed of a person, in one sentence.
    """

    signal: EscalationSignal.ValueType
    reason: str


@dataclass(slots=True)
class Signals:
    """What a task's journal says of its signals.

    Attributes:
        failures: Calls that have failed since the last one that did not; what a person did not allow counts as none.
        raised: Signals that a person was asked about already.
    """

    failures: int = 0
    raised: set[EscalationSignal.ValueType] = field(default_factory=set)

    def apply(self, event: StepEvent) -> None:
        """Adds one durable event."""
        match event.WhichOneof("event"):
            case "tool_result" if event.tool_result.outcome == TOOL_OUTCOME_OK:
                self.failures = 0
            case "tool_result":
                is_rejected = MeshError.from_status(event.tool_result.error).reason == RejectedError.reason
                self.failures += not is_rejected
            case "child" if event.child.event.HasField("result"):
                is_good = event.child.event.result.status == TASK_STATUS_COMPLETED
                self.failures = 0 if is_good else self.failures + 1
            case "input_requested" if event.input_requested.signal:
                self.raised.add(event.input_requested.signal)


def wish(*, is_wanted: bool) -> Raised | None:
    """Looks whether a prompt asks for a person."""
    if not is_wanted:
        return None
    return Raised(ESCALATION_SIGNAL_ASKED_FOR_PERSON, "whoever asked wants to speak to a person")


def mood(rules: Escalates, score: float) -> Raised | None:
    """Looks whether a prompt is very negative."""
    if not score < rules.min_sentiment:
        return None
    return Raised(ESCALATION_SIGNAL_SENTIMENT, f"the message sounds very negative ({score:.2f} of -1..1)")


def failing(rules: Escalates, signals: Signals) -> Raised | None:
    """Looks whether call after call has failed."""
    if signals.failures < rules.max_failures:
        return None
    return Raised(ESCALATION_SIGNAL_FAILED_ATTEMPTS, f"{signals.failures} calls in a row have failed: how to go on?")


def confidence(rules: Escalates, call: Call) -> Raised | None:
    """Reads how sure a model is; None: sure enough.

    Raises:
        InvalidRequestError: It says no number from 0 to 1, or no reason.
    """
    sure, reason = call.arguments.get("confidence"), call.arguments.get("reason")
    problems = {}
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
        problems["arguments/confidence"] = "must be a number, 0..1"
    if not isinstance(reason, str) or not reason.strip():
        problems["arguments/reason"] = "is required"
    if problems:
        raise InvalidRequestError(f"{ASK_ESCALATION} needs confidence and reason", fields=problems)
    if cast("float", sure) >= rules.min_confidence:
        return None
    said = str(reason).strip()[:MAX_REASON]
    return Raised(ESCALATION_SIGNAL_LOW_CONFIDENCE, f"the agent is not sure (confidence {sure:g}): {said}")


def asked(
    raised: Raised,
    task_id: str,
    prompt: str,
    messages: Sequence[Message],
    policy: inputs.Policy,
    *,
    now_ms: int,
    call_id: str = "",
) -> PendingInput:
    """Writes the question of a signal; the same one after a crash has the same id.

    Args:
        raised: The signal.
        task_id: Task that asks.
        prompt: The task's.
        messages: Since the prompt.
        policy: The agent's.
        now_ms: Store time.
        call_id: Call that waits for it.
    """
    name = EscalationSignal.Name(raised.signal)
    pending = inputs.asked(inputs.ESCALATION, task_id, raised.reason, policy, now_ms=now_ms, call_id=call_id, turn=name)
    return signalled(pending, raised.signal, brief(prompt, messages, raised.reason))


def signalled(pending: PendingInput, signal: EscalationSignal.ValueType, summary: str) -> PendingInput:
    """Adds to a question what calls for a person, and a summary; very negative messages and high stakes come first."""
    pending.signal = signal
    pending.summary = summary[:MOST_CHARS]
    if signal in URGENT:
        pending.priority = INPUT_PRIORITY_HIGH
    return pending
