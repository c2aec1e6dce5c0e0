"""The state of a run: what its journal adds up to. The live path and a takeover build it by the same fold. Pure."""

import json
from dataclasses import dataclass, field, replace

from meshwright.agents.account import Account, add
from meshwright.agents.escalation import ANSWERED_BY_PERSON, Signals
from meshwright.agents.inputs import RAISED
from meshwright.agents.loops import Repeats
from meshwright.agents.models.model import Call, JsonObject, Message
from meshwright.agents.plainness import is_plain
from meshwright.agents.task import counters_of
from meshwright.agents.values import arguments_of
from meshwright.agents.wording import answer_text, child_text, tool_text
from meshwright.core.canonical import digest, to_struct
from meshwright.core.errors import (
    BackendUnavailableError,
    GuardrailBlockedError,
    MeshError,
    PoisonTaskError,
    RejectedError,
    ToolCircuitOpenError,
    UnavailableError,
)
from meshwright.core.grant import approval_of
from meshwright.gen.agents.v1.step_event_pb2 import (
    CHILD_FAILURE_ACTION_OTHER,
    CHILD_FAILURE_ACTION_RETRY,
    DEGRADATION_LEVEL_WITHOUT_TOOLS,
    GUARDRAIL_ACTION_ASK,
    GUARDRAIL_ACTION_BLOCK,
    GUARDRAIL_POINT_INPUT,
    GUARDRAIL_POINT_TOOL_ARGUMENTS,
    GUARDRAIL_POINT_TOOL_RESULT,
    NOTICE_KIND_DEGRADED,
    NOTICE_KIND_LOOPING,
    NOTICE_KIND_PARKED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    ContextCompacted,
    Delegation,
    GuardrailVerdict,
    InputResolved,
    LlmCall,
    RunnerNotice,
    StepEvent,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_FAIL,
    DECISION_REJECT,
    DECISION_RETRY,
    FINISH_REASON_ERROR,
    INPUT_KIND_BUDGET,
    INPUT_KIND_ESCALATION,
    INPUT_KIND_QUESTION,
    TASK_STATUS_FAILED,
    PendingInput,
    TaskResponse,
    Usage,
)

OUT_OF_REACH = frozenset(error.reason for error in (UnavailableError, BackendUnavailableError, ToolCircuitOpenError))
"""What a tool's outcome says where its host, or the service behind it, is down."""
HELD = "output"
"""The argument of a question that holds an answer back."""
FINAL = frozenset({RejectedError.reason, PoisonTaskError.reason})
"""What a person decided, or what brings workers down, is not tried a second time."""
"""How a model reads what is no text."""
SORTED = json.JSONEncoder(sort_keys=True)


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
        is_suspect: Whether a guardrail has asked for care with some of it.
        blocked: Why a guardrail ended the task; empty: none did.
        prompt: What the model reads in place of the task's prompt; empty: that.
        is_admitted: Whether guardrails have looked at the prompt.
        signals: What calls for a person.
        usage: What was spent, children included.
        account: Who spent it, and what is set aside for calls under way.
        raised: Limits of the request that a person has raised, by field.
        is_out_of_budget: Whether nobody raises the budget that is used up.
        attempt: The highest attempt that has written here.
        sequence: Last durable event seen.
        is_parked: Whether the run gave up its place to wait.
        is_degraded: Whether a fallback answered, or less was given than should be; a child's counts too.
        down: Tools that could not be reached.
        without: Those of them that the journal says the task goes on without.
        compacted: What is left out of its prompts; None: nothing.
        corrections: How often an answer was handed back to the model.
        repeats: How often the last calls were made in a row with the same outcome.
        delegations: Children that it was to have, replaced ones included.
        called: Tools that were called.
        is_plain: Whether models, and tools that did what they should, are all that had a say.
        failed: By call id, what the child of an open call failed with that may be replaced.
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
    is_suspect: bool = False
    blocked: str = ""
    prompt: str = ""
    is_admitted: bool = False
    signals: Signals = field(default_factory=Signals)
    usage: Usage = field(default_factory=Usage)
    account: Account = field(default_factory=Account)
    raised: dict[str, int] = field(default_factory=dict)
    is_out_of_budget: bool = False
    attempt: int = 0
    sequence: int = 0
    is_parked: bool = False
    is_degraded: bool = False
    down: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    compacted: ContextCompacted | None = None
    corrections: int = 0
    repeats: Repeats = field(default_factory=Repeats)
    delegations: int = 0
    called: set[str] = field(default_factory=set)
    is_plain: bool = True
    failed: dict[str, TaskResponse] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Input and output tokens, children included: what budgets count."""
        return self.usage.input_tokens + self.usage.output_tokens

    @property
    def open_calls(self) -> list[Call]:
        """Calls of the last answer that have no outcome yet."""
        return [call for call in self.planned if call.call_id not in self.outcomes]

    def check(self) -> None:
        """Lets a run go on that nobody has ended.

        Raises:
            RejectedError: A person has.
            GuardrailBlockedError: A guardrail has.
        """
        if self.verdict:
            raise RejectedError(self.verdict)
        if self.blocked:
            raise GuardrailBlockedError(self.blocked)

    @property
    def is_waiting(self) -> bool:
        """Whether something has to happen before the model is asked again."""
        return bool(self.open_calls or self.asking)

    @property
    def is_answered(self) -> bool:
        """Whether the last words stand: an answer that a person gave, or had to let pass first."""
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
        return [
            call
            for call in self.open_calls
            if isinstance(self.intents[call.call_id], Delegation) and call.call_id not in self.failed
        ]

    @property
    def is_eager(self) -> bool:
        """Whether there is something to do as soon as a child fails."""
        return any(may_be_replaced(self.intents[call.call_id]) for call in self.children)

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
        add(self.usage, self.account.apply(event))
        self.is_plain = self.is_plain and is_plain(event)
        match event.WhichOneof("event"):
            case "started":
                self.pins = tuple(event.started.tool_pins)
                self.version = event.started.agent_version
            case "llm_call":
                self._planned(event.step, event.llm_call)
            case "tool_call":
                self.called.add(event.tool_call.tool)
                self.intents[event.tool_call.call_id] = event.tool_call
            case "delegation":
                self._delegate(event.delegation)
            case "input_requested":
                self.signals.apply(event)
                self._ask(event.input_requested)
            case "input_resolved":
                self._decide(event.input_resolved)
            case "tool_result":
                self.signals.apply(event)
                self._hear_from(event.tool_result)
                self._settle(event.tool_result.call_id, self._told(event.tool_result))
            case "child":
                self.signals.apply(event)
                self._child(event)
            case "notice" | "context_compacted" | "guardrail" | "correction":
                self._note(event)

    def _guard(self, verdict: GuardrailVerdict) -> None:
        if verdict.point == GUARDRAIL_POINT_INPUT:
            self.is_admitted = True
            self.prompt = verdict.prompt or self.prompt
        if verdict.point == GUARDRAIL_POINT_TOOL_RESULT:
            self.is_suspect |= verdict.action == GUARDRAIL_ACTION_ASK
        elif verdict.point != GUARDRAIL_POINT_TOOL_ARGUMENTS and verdict.action == GUARDRAIL_ACTION_BLOCK:
            self.blocked = f"{verdict.rule}: {verdict.reason}"

    def _planned(self, step: int, answer: LlmCall) -> None:
        self.step = step
        self.is_degraded |= answer.degraded
        self.planned = tuple(Call(call.call_id, call.tool, arguments_of(call)) for call in answer.planned_calls)
        for fresh in (self.intents, self.outcomes, self.decided, self.retries, self.approved, self.failed):
            fresh.clear()
        self.is_tainted |= answer.cached  # it may hold what others wrote
        self._was_tainted = self.is_tainted
        self.messages.append(Message("assistant", answer.text, self.planned))

    def _delegate(self, delegation: Delegation) -> None:
        self.intents[delegation.call_id] = delegation
        self.failed.pop(delegation.call_id, None)
        self.delegations += 1

    def _note(self, event: StepEvent) -> None:
        """Takes what the machinery did, and what it says to people or to the model."""
        match event.WhichOneof("event"):
            case "context_compacted":
                self.compacted = event.context_compacted
            case "guardrail":
                self._guard(event.guardrail)
            case "correction":
                self.corrections += 1
                self.messages.append(Message("user", event.correction.text))
            case _:
                self._hear(event.notice)

    def _hear(self, notice: RunnerNotice) -> None:
        self.is_parked = notice.kind == NOTICE_KIND_PARKED
        self.is_degraded |= notice.kind == NOTICE_KIND_DEGRADED
        if notice.level == DEGRADATION_LEVEL_WITHOUT_TOOLS:
            self.without = self.down
        if notice.kind == NOTICE_KIND_LOOPING:
            self.repeats.is_told = True
            self.messages.append(Message("user", notice.detail))

    def _hear_from(self, result: ToolResult) -> None:
        """Notes whether a tool could be reached, with the service behind it; what it says, of a failure too, taints."""
        if result.HasField("error") and MeshError.from_status(result.error).reason in OUT_OF_REACH:
            self.down |= {call.tool for call in self.planned if call.call_id == result.call_id}
        elif result.outcome in (TOOL_OUTCOME_OK, TOOL_OUTCOME_ERROR):
            self.is_tainted = True

    def _ask(self, pending: PendingInput) -> None:
        self.asking[pending.input_id] = pending
        if pending.kind in (INPUT_KIND_QUESTION, INPUT_KIND_ESCALATION) and pending.call_id:
            self.intents[pending.call_id] = pending

    def _decide(self, resolved: InputResolved) -> None:
        pending = self.asking.pop(resolved.input_id, None)
        if pending is None:
            return
        if resolved.decision == DECISION_FAIL:
            self.verdict = resolved.reason or "a person ended the task"
        if pending.kind == INPUT_KIND_BUDGET:
            self._raise(resolved)
        else:
            self.decided[pending.call_id] = resolved
            self._follow(pending, resolved)

    def _follow(self, pending: PendingInput, resolved: InputResolved) -> None:
        """Takes in what a decision means for a call, or for the whole task; where that ended it, nothing."""
        call_id = pending.call_id
        if resolved.decision == DECISION_APPROVE:
            if call_id:
                self.approved[call_id] = pending.intent_digest
            elif HELD in pending.arguments.fields:
                self.messages[-1] = replace(self.messages[-1], text=pending.arguments.fields[HELD].string_value)
        elif resolved.decision == DECISION_RETRY:
            self.approved[call_id] = pending.intent_digest
            self.retries[call_id] = self.retries.get(call_id, 0) + 1
        elif resolved.decision == DECISION_EDIT:
            self._edit(call_id, json.loads(resolved.edited_arguments_json))
        elif self.verdict:
            return
        elif pending.kind == INPUT_KIND_ESCALATION and not call_id:
            self._advise(pending, resolved)
        elif pending.kind in (INPUT_KIND_QUESTION, INPUT_KIND_ESCALATION):
            self._settle(call_id, answer_text(resolved))

    def _advise(self, pending: PendingInput, resolved: InputResolved) -> None:
        """Takes in what a person said whom the task was handed to: the last word, or advice to go on with."""
        is_answer = resolved.decision == DECISION_ANSWER
        if is_answer and pending.signal in ANSWERED_BY_PERSON:
            self.planned = ()
            self.messages.append(Message("assistant", answer_text(resolved)))
            return
        said = answer_text(resolved) if is_answer else f"nobody takes over ({resolved.reason or 'go on without'})"
        self.messages.append(Message("user", f"A person was asked ({pending.prompt}) and says: {said}"))

    def _raise(self, resolved: InputResolved) -> None:
        """Takes in new limits; without a decision for them the task ends with what there is."""
        self.is_out_of_budget = resolved.decision == DECISION_REJECT
        for name in RAISED:
            if value := getattr(resolved, name):
                self.raised[name] = max(value, self.raised.get(name, 0))

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
            self.is_degraded |= event.child.event.result.degraded
            for intent in self.intents.values():
                if isinstance(intent, Delegation) and intent.child_task_id == event.child.child_task_id:
                    self._child_ended(intent, event.child.event.result)
                    break

    def _child_ended(self, delegation: Delegation, result: TaskResponse) -> None:
        self.is_tainted = True
        if may_be_replaced(delegation) and is_failure(result):
            self.failed[delegation.call_id] = result
        else:
            self._settle(delegation.call_id, child_text(result))

    def _told(self, result: ToolResult) -> str:
        """Writes an outcome as the model reads it; that of a child which nobody took the place of is the child's."""
        failed = self.failed.pop(result.call_id, None)
        return child_text(failed) if failed else tool_text(result)

    def _settle(self, call_id: str, text: str) -> None:
        if call_id in self.outcomes or call_id not in {call.call_id for call in self.planned}:
            return
        self.outcomes[call_id] = text
        if not self.open_calls:
            self.repeats.add((self._key_of(call), self.outcomes[call.call_id]) for call in self.planned)
            self.messages += [Message("tool", self.outcomes[c.call_id], call_id=c.call_id) for c in self.planned]

    def _key_of(self, call: Call) -> str:
        """Returns what is the same for calls that are."""
        intent = self.intents.get(call.call_id)
        return intent.intent_digest if isinstance(intent, ToolCall) else SORTED.encode([call.tool, call.arguments])


def may_be_replaced(intent: ToolCall | Delegation | PendingInput) -> bool:
    """Whether another child follows where the one that is meant fails."""
    actions = (CHILD_FAILURE_ACTION_RETRY, CHILD_FAILURE_ACTION_OTHER)
    return isinstance(intent, Delegation) and intent.on_failure in actions


def is_failure(result: TaskResponse) -> bool:
    """Whether another child may do better than one that ended so."""
    is_error = result.status == TASK_STATUS_FAILED and result.finish_reason == FINISH_REASON_ERROR
    return is_error and MeshError.from_status(result.error).reason not in FINAL
