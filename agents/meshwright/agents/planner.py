"""Planning: one model call, and what its answer means for the journal."""

import itertools
import time

from meshwright.agents import escalation, handover, inputs
from meshwright.agents.agent import Agent
from meshwright.agents.brief import brief
from meshwright.agents.escalation import ASK_ESCALATION
from meshwright.agents.feed import Feeds
from meshwright.agents.inputs import ASK_PERSON, Approval
from meshwright.agents.journal import Journal
from meshwright.agents.models.model import Answer, Call, Message, Model, Prompt, ToolSpec
from meshwright.agents.passing import Passing
from meshwright.agents.run import Run
from meshwright.agents.supervisor import Supervisor
from meshwright.agents.task import TOKENS, TaskName
from meshwright.agents.toolbox import Pin
from meshwright.agents.values import TOO_DEEP, fitting, fitting_arguments, planned_call
from meshwright.core import telemetry
from meshwright.core.canonical import digest, to_struct
from meshwright.core.errors import InvalidRequestError, MeshError, ModelUnavailableError, PermissionDeniedError
from meshwright.core.ids import CALLER_ID, call_key
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.step_event_pb2 import (
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_INVALID_ARGUMENTS,
    LlmCall,
    StepEvent,
    TextDelta,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import ESCALATION_SIGNAL_HIGH_STAKES, PendingInput, Usage
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    APPROVAL_RULE_ALWAYS,
    APPROVAL_RULE_WHEN_TAINTED,
    ApprovalRule,
)
from meshwright.registry.schema import explained

RULES: dict[ApprovalRule.ValueType, Approval] = {
    APPROVAL_RULE_WHEN_TAINTED: "when_tainted",
    APPROVAL_RULE_ALWAYS: "always",
}
ASKING = ToolSpec(
    ASK_PERSON,
    "Asks a person a question and waits for the answer, which may take days. Ask only what nobody else can know.",
    {
        "type": "object",
        "properties": {
            "question": {"type": "string", "minLength": 1},
            "answer_schema": {"type": "object", "description": "JSON Schema of the answer; by default any text"},
        },
        "required": ["question"],
        "additionalProperties": False,
    },
)
DELTA_S = 0.05
MAX_CALLS = 32


class Planner:
    """Asks the model what to do next.

    Args:
        agent: Whose instructions and tools count.
        model: The model.
        supervisor: Knows who work can be delegated to.
        limit_s: Seconds for one model call.
    """

    def __init__(self, agent: Agent, model: Model, supervisor: Supervisor, *, limit_s: float = 120.0) -> None:
        self._limit_s = limit_s
        self._agent = agent
        self._model = model
        self._supervisor = supervisor

    @property
    def agent_id(self) -> str:
        """The agent that plans."""
        return self._agent.name

    async def prompt(self, run: Run) -> Prompt | None:
        """Builds the prompt: history, the task's prompt, the conversation so far; None: it would break the budget."""
        tools: list[ToolSpec] = [pin.spec for pin in run.tools.values()]
        tools += await self._supervisor.specs(run)
        tools += [ASKING] if self._agent.asks_people else []
        tools += handover.specs(self._agent)
        messages = (*run.history, Message("user", run.request.prompt), *run.state.messages)
        name, instructions = self._agent.name, self._agent.instructions
        room = run.budget.room(run.state, instructions, messages)
        return Prompt(name, instructions, messages, tuple(tools), run.state.step, room) if room else None

    async def is_handed_over(self, run: Run) -> bool:
        """Asks a person where a signal calls for one; returns whether one was asked, and has decided."""
        return await handover.is_handed_over(run, self._agent)

    async def ask(self, run: Run, prompt: Prompt) -> list[StepEvent]:
        """Calls the model and returns the step's events: its answer, then an intent (or a refusal) for each call.

        Raises:
            MeshError: The model failed for good.
        """
        started = time.perf_counter()
        deltas = Deltas(run.journal, run.feeds, run.record.name, run.state.step + 1)
        try:
            with run.awaiting(self._limit_s), Limit(self._limit_s):
                answer = await self._model.answer(prompt, deltas.add)
        except TimeoutError:
            raise ModelUnavailableError(f"the model did not answer within {self._limit_s:g} s") from None
        finally:
            await deltas.close()
        calls = with_ids(answer, run.state.step + 1)
        return self._events(run, answer, calls, int((time.perf_counter() - started) * 1000))

    def _events(self, run: Run, answer: Answer, calls: list[Call], latency_ms: int) -> list[StepEvent]:
        step = run.state.step + 1
        agent, usage = self._agent.name, answer.usage
        telemetry.STEPS.labels(agent).inc()
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                telemetry.TOKENS.labels(agent, answer.model, kind).inc(tokens)
        said = LlmCall(
            provider=answer.provider,
            model=answer.model,
            text=fitting(answer.text),
            planned_calls=[planned_call(call.call_id, call.tool, call.arguments) for call in calls],
            stop_reason=answer.stop_reason,
            usage=Usage(model_calls=1),
            latency_ms=latency_ms,
        )
        for name in TOKENS:
            if tokens := getattr(usage, name):
                setattr(said.usage, name, tokens)
        children = sum(call.tool in self._supervisor.names for call in calls)
        spent = usage.input_tokens + usage.output_tokens
        intents = [self._intents(run, step, call, children, spent) for call in calls]
        return [run.event(step, llm_call=said), *itertools.chain.from_iterable(intents)]

    def _intents(self, run: Run, step: int, call: Call, children: int, spent: int) -> list[StepEvent]:
        try:
            if call.tool in self._supervisor.names:
                return [run.event(step, delegation=self._supervisor.intent(run, step, call, children, spent))]
            if call.tool == ASK_PERSON and self._agent.asks_people:
                return [run.event(step, input_requested=inputs.question(self._asked(inputs.QUESTION, run, call), call))]
            if call.tool == ASK_ESCALATION and handover.specs(self._agent):
                return [handover.confided(run, self._agent, step, call)]
            pin = checked_pin(run, call)
            intent = tool_intent(run, step, call, pin)
            events = [run.event(step, tool_call=intent)]
            if not self._needs_approval(run, pin):
                return events
            pending = inputs.about(self._asked(inputs.APPROVAL, run, call), intent)
            return [*events, run.event(step, input_requested=pending)]
        except MeshError as error:
            refused = TOOL_OUTCOME_INVALID_ARGUMENTS if isinstance(error, InvalidRequestError) else TOOL_OUTCOME_DENIED
            outcome = ToolResult(call_id=call.call_id, outcome=refused, error=error.to_status())
            return [run.event(step, tool_result=outcome)]

    def _asked(self, kind: inputs.Kind, run: Run, call: Call) -> PendingInput:
        prompt = f"{self._agent.name} wants to call {call.tool}: may it?"
        turn = str(run.state.step + 1)
        pending = inputs.asked(
            kind, run.task_id, prompt, self._agent.policy, now_ms=run.store_ms, call_id=call.call_id, turn=turn
        )
        pending.summary = brief(run.request.prompt, run.state.messages, prompt)
        if call.tool in self._agent.stakes:
            return escalation.signalled(pending, ESCALATION_SIGNAL_HIGH_STAKES, pending.summary)
        return pending

    def _needs_approval(self, run: Run, pin: Pin) -> bool:
        own = RULES.get(pin.tool.approval, "never")
        rule = inputs.strictest(own, self._agent.approval_of(pin.tool.name))
        return rule == "always" or (rule == "when_tainted" and run.is_tainted)


def with_ids(answer: Answer, step: int) -> list[Call]:
    """Returns the answer's calls as they can be journaled, with ids of their own, whatever the provider sent."""
    calls = answer.calls[:MAX_CALLS]
    taken = {call.call_id for call in calls}
    fresh = (call_id for number in itertools.count() if (call_id := f"call_{step}_{number}") not in taken)
    found: dict[str, Call] = {}
    for call in calls:
        is_good = CALLER_ID.fullmatch(call.call_id) and call.call_id not in found
        call_id = call.call_id if is_good else next(fresh)
        found[call_id] = Call(call_id, fitting(call.tool), fitting_arguments(call.arguments))
    return list(found.values())


def checked_pin(run: Run, call: Call) -> Pin:
    """Returns the pin that a call means.

    Raises:
        PermissionDeniedError: The agent has no such tool.
        InvalidRequestError: The arguments do not fit the tool's schema.
    """
    pin = run.tools.get(call.tool)
    if pin is None:
        known = ", ".join(run.tools) or "none"
        raise PermissionDeniedError(f"{run.record.agent_id} has no tool {call.tool}: its tools are {known}")
    if TOO_DEEP in call.arguments:
        raise InvalidRequestError(f"arguments of {call.tool} are nested too deeply", fields={"arguments": "too deep"})
    violations = pin.arguments.violations(call.arguments)
    if violations:
        problems = {f"arguments{violation.pointer}": violation.message for violation in violations}
        raise InvalidRequestError(f"arguments of {call.tool}: {explained(violations)}", fields=problems)
    return pin


def tool_intent(run: Run, step: int, call: Call, pin: Pin, retry: int = 0) -> ToolCall:
    """Writes what is about to be done, before it is done; `retry`: how often a person had it run again."""
    intent = ToolCall(
        call_id=call.call_id,
        tool=pin.tool.name,
        version=pin.tool.version,
        arguments=to_struct(call.arguments),
        intent_digest=digest([pin.tool.name, pin.tool.version, call.arguments]),
        idempotency_key=call_key(run.task_id, step, f"{call.call_id}#{retry}" if retry else call.call_id),
    )
    intent.deadline.FromMilliseconds(int((time.time() + min(pin.timeout_s, run.seconds_left)) * 1000))
    return intent


class Deltas:
    """Shows text to watchers while the model writes it: whatever came within 50 ms goes as one frame."""

    def __init__(self, journal: Journal, feeds: Feeds, name: TaskName, step: int) -> None:
        self._step = step
        self._text = ""
        self._offset = 0
        self._passing = Passing(journal, feeds, name, DELTA_S, self._frame)

    def add(self, text: str) -> None:
        """Takes a piece of text."""
        self._text += fitting(text)
        self._passing.came()

    def _frame(self) -> StepEvent | None:
        text, self._text = self._text, ""
        offset, self._offset = self._offset, self._offset + len(text)
        return StepEvent(step=self._step, delta=TextDelta(text=text, offset=offset)) if text else None

    async def close(self) -> None:
        """Shows what is left."""
        await self._passing.close()
