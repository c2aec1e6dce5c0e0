"""The state of a run: what its journal adds up to. The live path and a takeover build it by the same fold. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from meshwright.agents.escalation import ANSWERED_BY_PERSON, Signals
from meshwright.agents.models.model import Call, JsonObject, Message
from meshwright.agents.task import counters_of
from meshwright.agents.values import arguments_of
from meshwright.core.canonical import digest, from_value, to_struct
from meshwright.core.errors import InputExpiredError, MeshError
from meshwright.core.grant import approval_of
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_PARKED,
    TOOL_OUTCOME_OK,
    Delegation,
    InputResolved,
    LlmCall,
    StepEvent,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_FAIL,
    DECISION_RETRY,
    INPUT_KIND_ESCALATION,
    INPUT_KIND_QUESTION,
    TASK_STATUS_COMPLETED,
    PendingInput,
    TaskResponse,
    Usage,
)

TEXT = json.JSONEncoder(ensure_ascii=False)
"""How a model reads what is no text."""


@dataclass(slots=True)
class RunState:
    """A conversation as far as it has been journaled.

    Attributes:
        messages: Since the task's prompt; outcomes stand in the order in which their calls were planned.
        step: Plan-act-observe rounds begun.
        pins: Tools pinned for the task's life.
        planned: Calls of the last answer.
        version: Agent version that began.
        intents: By call id, what was journaled before it was done.
        outcomes: By call id, what came of it, as the model will read it.
        asking: By input id, questions to people that nobody has decided on.
        decided: By call id, the last decision on it.
        retries: By call id, how often a person had it run again.
        approved: By call id, the intent digest of what a person has allowed of the step.
        verdict: Why a person ended the task; empty: nobody did.
        is_tainted: Whether content that others wrote has entered the conversation.
        signals: What calls for a person.
        usage: What was spent, children included.
        attempt: The highest attempt that has written here.
        sequence: Last durable event seen.
        is_parked: Whether the run gave up its place to wait.
    """

    messages: list[Message] = field(default_factory=list)
    step: int = 0
    pins: tuple[str, ...] = ()
    planned: tuple[Call, ...] = ()
    version: str = ""
    intents: dict[str, ToolCall | Delegation | PendingInput] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    asking: dict[str, PendingInput] = field(default_factory=dict)
    decided: dict[str, InputResolved] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)
    verdict: str = ""
    _was_tainted: bool = False
    is_tainted: bool = False
    signals: Signals = field(default_factory=Signals)
    usage: Usage = field(default_factory=Usage)
    attempt: int = 0
    sequence: int = 0
    is_parked: bool = False

    @property
    def tokens(self) -> int:
        """Input and output tokens, children included: what budgets count."""
        return self.usage.input_tokens + self.usage.output_tokens

    @property
    def open_calls(self) -> list[Call]:
        """Calls of the last answer that have no outcome yet."""
        return [call for call in self.planned if call.call_id not in self.outcomes]

    @property
    def is_answered(self) -> bool:
        """Whether the last words stand: an answer that a person gave."""
        return bool(self.messages) and self.messages[-1].role == "assistant" and not self.planned

    @property
    def was_tainted(self) -> bool:
        """What `is_tainted` said when the open calls were chosen; where none is open, they are being chosen now."""
        return self._was_tainted if self.open_calls else self.is_tainted

    @property
    def actionable(self) -> list[Call]:
        """Open calls of tools that wait for nobody."""
        asking = {pending.call_id for pending in self.asking.values()}
        return [
            call
            for call in self.open_calls
            if isinstance(self.intents[call.call_id], ToolCall) and call.call_id not in asking
        ]

    @property
    def approvals(self) -> list[str]:
        """The step's calls that a person has allowed, as a grant names them; one that is run again has another key."""
        found = ((self.intents.get(call_id), digest) for call_id, digest in self.approved.items())
        return sorted(
            approval_of(intent.idempotency_key, digest) for intent, digest in found if isinstance(intent, ToolCall)
        )

    @property
    def children(self) -> list[Call]:
        """Open calls that other agents work on."""
        return [call for call in self.open_calls if isinstance(self.intents[call.call_id], Delegation)]

    @property
    def text(self) -> str:
        """The last words of the model: the output so far."""
        said = (message.text for message in reversed(self.messages) if message.role == "assistant" and message.text)
        return next(said, "")

    @property
    def partial_output(self) -> str:
        """The best that can be shown when the run has to stop: the model's words, else what its calls brought."""
        return self.text or "\n\n".join(message.text for message in self.messages if message.role == "tool")

    def apply(self, event: StepEvent) -> None:
        """Adds one durable event."""
        self.sequence = max(self.sequence, event.sequence)
        self.attempt = max(self.attempt, event.attempt)
        add(self.usage, counters_of(event))
        self.signals.apply(event)
        match event.WhichOneof("event"):
            case "started":
                self.pins = tuple(event.started.tool_pins)
                self.version = event.started.agent_version
            case "llm_call":
                self._planned(event.step, event.llm_call)
            case "tool_call":
                self.intents[event.tool_call.call_id] = event.tool_call
            case "delegation":
                self.intents[event.delegation.call_id] = event.delegation
            case "input_requested":
                self._ask(event.input_requested)
            case "input_resolved":
                self._decide(event.input_resolved)
            case "tool_result":
                self.is_tainted |= event.tool_result.outcome == TOOL_OUTCOME_OK
                self._settle(event.tool_result.call_id, tool_text(event.tool_result))
            case "child":
                self._child(event)
            case "notice":
                self.is_parked = event.notice.kind == NOTICE_KIND_PARKED

    def _planned(self, step: int, answer: LlmCall) -> None:
        self.step = step
        self.planned = tuple(Call(call.call_id, call.tool, arguments_of(call)) for call in answer.planned_calls)
        for fresh in (self.intents, self.outcomes, self.decided, self.retries, self.approved):
            fresh.clear()
        self._was_tainted = self.is_tainted
        self.messages.append(Message("assistant", answer.text, self.planned))

    def _ask(self, pending: PendingInput) -> None:
        self.asking[pending.input_id] = pending
        if pending.kind in (INPUT_KIND_QUESTION, INPUT_KIND_ESCALATION) and pending.call_id:
            self.intents[pending.call_id] = pending

    def _decide(self, resolved: InputResolved) -> None:
        pending = self.asking.pop(resolved.input_id, None)
        if pending is None:
            return
        call_id = pending.call_id
        self.decided[call_id] = resolved
        if resolved.decision == DECISION_FAIL:
            self.verdict = resolved.reason or "a person ended the task"
        elif resolved.decision == DECISION_APPROVE:
            self.approved[call_id] = pending.intent_digest
        elif resolved.decision == DECISION_RETRY:
            self.approved[call_id] = pending.intent_digest
            self.retries[call_id] = self.retries.get(call_id, 0) + 1
        elif resolved.decision == DECISION_EDIT:
            self._edit(call_id, json.loads(resolved.edited_arguments_json))
        elif pending.kind == INPUT_KIND_ESCALATION and not call_id:
            self._hear(pending, resolved)
        elif pending.kind in (INPUT_KIND_QUESTION, INPUT_KIND_ESCALATION):
            self._settle(call_id, answer_text(resolved))

    def _hear(self, pending: PendingInput, resolved: InputResolved) -> None:
        """Takes in what a person said whom the task was handed to: the last word, or advice to go on with."""
        is_answer = resolved.decision == DECISION_ANSWER
        if is_answer and pending.signal in ANSWERED_BY_PERSON:
            self.planned = ()
            self.messages.append(Message("assistant", answer_text(resolved)))
            return
        said = answer_text(resolved) if is_answer else f"nobody takes over ({resolved.reason or 'go on without'})"
        self.messages.append(Message("user", f"A person was asked ({pending.prompt}) and says: {said}"))

    def _edit(self, call_id: str, arguments: JsonObject) -> None:
        """Replaces a call's arguments; the model reads the conversation as if it had asked for these."""
        self.planned = tuple(
            replace(call, arguments=arguments) if call.call_id == call_id else call for call in self.planned
        )
        self.messages[-1] = replace(self.messages[-1], calls=self.planned)
        intent = self.intents[call_id]
        if isinstance(intent, ToolCall):
            edited = ToolCall()
            edited.CopyFrom(intent)
            edited.arguments.CopyFrom(to_struct(arguments))
            edited.intent_digest = digest([intent.tool, intent.version, arguments])
            self.approved[call_id] = edited.intent_digest
            self.intents[call_id] = edited

    def _child(self, event: StepEvent) -> None:
        if event.child.event.HasField("result"):
            for call_id, intent in self.intents.items():
                if isinstance(intent, Delegation) and intent.child_task_id == event.child.child_task_id:
                    self.is_tainted = True
                    self._settle(call_id, child_text(event.child.event.result))
                    break

    def _settle(self, call_id: str, text: str) -> None:
        if call_id in self.outcomes or call_id not in {call.call_id for call in self.planned}:
            return
        self.outcomes[call_id] = text
        if not self.open_calls:
            self.messages += [Message("tool", self.outcomes[c.call_id], call_id=c.call_id) for c in self.planned]


def add(usage: Usage, counters: Mapping[str, int]) -> None:
    """Adds an event's counters; steps are no usage."""
    for name, value in counters.items():
        if name != "steps":
            setattr(usage, name, getattr(usage, name) + value)


def answer_text(resolved: InputResolved) -> str:
    """Writes a person's answer as the model reads it; their silence as a failure."""
    if resolved.decision != DECISION_ANSWER:
        return failure_text(InputExpiredError(resolved.reason or "nobody answered"))
    answer = from_value(resolved.answer, "answer")
    return answer if isinstance(answer, str) else TEXT.encode(answer)


def tool_text(result: ToolResult) -> str:
    """Writes a tool's outcome as the model reads it."""
    if result.outcome == TOOL_OUTCOME_OK:
        return TEXT.encode(from_value(result.result, "result"))
    return failure_text(MeshError.from_status(result.error))


def child_text(result: TaskResponse) -> str:
    """Writes a child's result as the model reads it."""
    if result.status == TASK_STATUS_COMPLETED:
        return result.output
    error = MeshError.from_status(result.error)
    error.message = error.message or "the task was cancelled"
    return failure_text(error)


def failure_text(error: MeshError) -> str:
    """Writes a failure so that a model can act on it."""
    return TEXT.encode({"error": {"reason": error.reason, "message": error.message}})
