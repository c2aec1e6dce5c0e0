"""Planning: one model call, and what its answer means for the journal."""

import itertools
import time
from collections.abc import Sequence

from meshwright.agents import escalation, handover, inputs
from meshwright.agents.agent import Agent
from meshwright.agents.brief import brief
from meshwright.agents.budget import Allowance, Shortfall
from meshwright.agents.context import READ_RESULT, ContextManager, Conversation, Cut
from meshwright.agents.degradation import notice_of_what_is_down, without_what_is_down
from meshwright.agents.escalation import ASK_ESCALATION
from meshwright.agents.feed import Feeds
from meshwright.agents.guard import Guard, Said
from meshwright.agents.guardrails.screen import Open, Screen
from meshwright.agents.inputs import ASK_PERSON, Approval
from meshwright.agents.journal import Journal
from meshwright.agents.models.model import Answer, Call, Message, Prompt, ToolSpec
from meshwright.agents.models.router import Router
from meshwright.agents.passing import Passing
from meshwright.agents.purse import Purse
from meshwright.agents.reading import READING, read_on
from meshwright.agents.responses import PATIENCE_S, Responses
from meshwright.agents.run import Run
from meshwright.agents.summary import Summarizer
from meshwright.agents.supervisor import Supervisor
from meshwright.agents.task import TaskName
from meshwright.agents.toolbox import Pin
from meshwright.agents.typed import correction
from meshwright.agents.values import TOO_DEEP, fitting, fitting_arguments, planned_call
from meshwright.core import telemetry
from meshwright.core.canonical import digest, to_struct
from meshwright.core.errors import (
    BudgetExceededError,
    InvalidRequestError,
    MeshError,
    ModelRejectedError,
    PermissionDeniedError,
    RateLimitedError,
)
from meshwright.core.ids import CALLER_ID, call_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    GUARDRAIL_ACTION_ASK,
    GUARDRAIL_ACTION_BLOCK,
    GUARDRAIL_POINT_OUTPUT,
    NOTICE_KIND_FELL_BACK,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_INVALID_ARGUMENTS,
    LlmCall,
    RunnerNotice,
    StepEvent,
    TextDelta,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    ESCALATION_SIGNAL_HIGH_STAKES,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    EmbeddingUsage,
    PendingInput,
    Usage,
)
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
        router: Asks the models.
        supervisor: Knows who work can be delegated to.
        purse: Pays.
        guard: Looks at what the model says and wants to do.
        responses: Knows answers from before.
    """

    def __init__(
        self,
        agent: Agent,
        router: Router,
        supervisor: Supervisor,
        *,
        purse: Purse,
        guard: Guard,
        responses: Responses,
    ) -> None:
        self._responses = responses
        self._guard = guard
        self._agent = agent
        self._router = router
        self._supervisor = supervisor
        self._purse = purse
        self._contexts = ContextManager(agent.context_window)
        self._outage = agent.outage
        self._escalating = handover.specs(agent)
        self._summarizer = Summarizer(agent.name, router, purse)

    @property
    def agent_id(self) -> str:
        """The agent that plans."""
        return self._agent.name

    @property
    def policy(self) -> inputs.Policy:
        """How the agent asks people."""
        return self._agent.policy

    async def prompt(self, run: Run) -> Prompt | Shortfall:
        """Builds the prompt: what of session and task fits, and the tools; sets aside what its call may cost.

        Raises:
            PriceUnknownError: A budget counts money, and nobody has said what the model costs.
        """
        budget = run.budget
        if reason := budget.exhausted(run.state):
            return Shortfall(reason)
        tools: list[ToolSpec] = [pin.spec for pin in run.tools.values()]
        tools += await self._supervisor.specs(run)
        tools += [ASKING] if self._agent.asks_people else []
        tools += self._escalating
        messages = await self._messages(run, tools)
        tools += [READING] if run.state.compacted else []
        name, instructions = self._agent.name, self._agent.instructions
        left = self._contexts.answer(instructions, tools, messages)
        room = min(left, budget.room(run.state, instructions, messages))
        if not room:
            total = budget.least(run.state, instructions, messages) if left else 0
            return Shortfall(FINISH_REASON_TOKEN_BUDGET_EXCEEDED, total=total)
        schema = run.result_type.document if run.result_type else None
        prompt = Prompt(name, instructions, messages, tuple(tools), run.state.step, room, schema)
        return await self._purse.opened(run, self._guard.marked(run, prompt), self._responses.compared(run))

    async def _messages(self, run: Run, tools: Sequence[ToolSpec]) -> tuple[Message, ...]:
        """Builds the prompt's messages; what is left out from now on is journaled before the model is asked."""
        agent, budget = self._agent, run.budget
        left = budget.left(run.state)
        room = self._contexts.room(agent.instructions, [*tools, READING], budget=budget.tokens, left=left)
        while True:
            cut = Cut.read(run.state.compacted, run.history)
            context = self._contexts.build(conversation_of(run), cut, room)
            if context.compacted is None:
                return context.messages
            paid = await self._summarizer.improve(run, context, room) if agent.summaries == "model" else []
            await run.append(f"context:{run.state.sequence}", *paid, run.event(context_compacted=context.compacted))

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
        screen = self._guard.screen(run, deltas.add)
        notices = Notices(run, deltas, screen)
        if lacking := notice_of_what_is_down(run.state, self._outage):
            await run.notice(f"without:{run.state.step}", lacking)
        prompt = without_what_is_down(prompt, run.state, self._outage)
        try:
            with run.awaiting(self._router.limit_s + PATIENCE_S):
                answer = await self._responses.recalled(run, screen.add) or await self._router.answer(
                    prompt, screen.add, wish=self._purse.bounded(run, run.wish), on_notice=notices.tell
                )
        except (RateLimitedError, ModelRejectedError):  # anything else may have cost something
            await self._purse.release(run)
            raise
        finally:
            screen.close()
            await deltas.close()
        latency_ms = int((time.perf_counter() - started) * 1000)
        said = await self._guard.said(run, answer.text, with_ids(answer, run.state.step + 1))
        return self._events(run, answer, said, latency_ms)

    async def journal(self, run: Run, step: Sequence[StepEvent]) -> None:
        """Writes a step with the intents of its calls, before any of them leaves a trace."""
        await self._purse.journal(run, f"step:{run.state.step + 1}", step)

    def _events(self, run: Run, answer: Answer, checked: Said, latency_ms: int) -> list[StepEvent]:
        calls = checked.calls
        step = run.state.step + 1
        agent, usage = self._agent.name, answer.usage
        telemetry.STEPS.labels(agent).inc()
        held, cost = run.state.account.model_call, 0 if answer.saved else self._purse.cost(answer)
        tenant = run.record.name.tenant
        telemetry.count_cost(agent, tenant, "llm", answer.model, cost)
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                names = telemetry.TENANTS.label(tenant), telemetry.NAMES.label(answer.model)
                telemetry.TOKENS.labels(agent, *names, kind).inc(tokens)
        said = LlmCall(
            provider=answer.provider,
            model=answer.model,
            text=fitting(checked.text),
            planned_calls=[planned_call(call.call_id, call.tool, call.arguments) for call in calls],
            stop_reason=answer.stop_reason,
            usage=used(answer, cost),
            cached=answer.saved is not None,
            latency_ms=latency_ms,
            routed_because=answer.routed_because,
            degraded=answer.is_degraded,
            reserved_micros=held.micros if held else 0,
        )
        if run.embedding.model:
            cost += embedded(run, said)
        spent = usage.input_tokens + usage.output_tokens
        intents = self._planned(run, checked, spent, cost) if calls else []
        events = [run.event(step, llm_call=said), *checked.events, *intents]
        if is_answer(events) and (wrong := correction(run.result_type, said.text, run.state.corrections)):
            events.append(run.event(step, correction=wrong))
        return [*events, *run.budget_notices(tokens=spent, micros=cost, steps=1)]

    def _planned(self, run: Run, checked: Said, tokens: int, micros: int) -> list[StepEvent]:
        """Returns the intents of an answer's calls, which itself took `tokens` and `micros`."""
        children = self._supervisor.admitted(run, checked.calls)
        allowance = run.budget.allowance(run.state, len(children), tokens, micros)
        intents = [self._intents(run, call, checked, children, allowance) for call in checked.calls]
        return list(itertools.chain.from_iterable(intents))

    def _intents(
        self, run: Run, call: Call, checked: Said, children: frozenset[str], allowance: Allowance
    ) -> list[StepEvent]:
        step = run.state.step + 1
        try:
            checked.check(call)
            if call.tool in self._supervisor.names:
                return [run.event(step, delegation=self._supervisor.intent(run, step, call, children, allowance))]
            if event := self._built_in(run, call, step):
                return [event]
            pin = checked_pin(run, call)
            intent = tool_intent(run, step, call, pin)
            intent.cost_micros += self._purse.embedding(run, call)
            allowance.take(call.tool, intent.cost_micros)
            events = [run.event(step, tool_call=intent)]
            if not self._needs_approval(run, pin) and call.call_id not in checked.asking:
                return events
            pending = inputs.about(
                self._asked(inputs.APPROVAL, run, call, checked.asking.get(call.call_id, "")), intent
            )
            return [*events, run.event(step, input_requested=pending)]
        except MeshError as error:
            if isinstance(error, BudgetExceededError):
                telemetry.count_refusal(run.record.agent_id, run.record.name.tenant, "tool")
            refused = TOOL_OUTCOME_INVALID_ARGUMENTS if isinstance(error, InvalidRequestError) else TOOL_OUTCOME_DENIED
            outcome = ToolResult(call_id=call.call_id, outcome=refused, error=error.to_status())
            return [run.event(step, tool_result=outcome)]

    def _built_in(self, run: Run, call: Call, step: int) -> StepEvent | None:
        """Returns what a call of one of the runner's own tools means; None: it is another tool's."""
        if call.tool == ASK_PERSON and self._agent.asks_people:
            return run.event(step, input_requested=inputs.question(self._asked(inputs.QUESTION, run, call), call))
        if call.tool == READ_RESULT:
            return run.event(step, tool_result=read_on(conversation_of(run), call))
        if call.tool == ASK_ESCALATION and self._escalating:
            return handover.confided(run, self._agent, step, call)
        return None

    def _asked(self, kind: inputs.Kind, run: Run, call: Call, why: str = "") -> PendingInput:
        prompt = f"{self._agent.name} wants to call {call.tool}: may it?" + (f" ({why})" if why else "")
        turn = str(run.state.step + 1)
        pending = inputs.asked(
            kind, run.task_id, prompt, self._agent.policy, now_ms=run.store_ms, call_id=call.call_id, turn=turn
        )
        pending.summary = brief(run.prompt, run.state.messages, prompt)
        if call.tool in self._agent.stakes:
            return escalation.signalled(pending, ESCALATION_SIGNAL_HIGH_STAKES, pending.summary)
        return pending

    def _needs_approval(self, run: Run, pin: Pin) -> bool:
        own = RULES.get(pin.tool.approval, "never")
        rule = inputs.strictest(own, self._agent.approval_of(pin.tool.name))
        return rule == "always" or (rule == "when_tainted" and run.is_tainted)


def used(answer: Answer, micros: int) -> Usage:
    """Writes what a model call used, or what an answer from before saved."""
    if answer.saved:
        return Usage(saved_tokens=answer.saved.tokens, saved_cost_micros=answer.saved.micros)
    counted = answer.usage
    return Usage(
        model_calls=1,
        cost_micros=micros,
        input_tokens=counted.input_tokens,
        output_tokens=counted.output_tokens,
        cache_read_tokens=counted.cache_read_tokens,
        cache_write_tokens=counted.cache_write_tokens,
    )


def embedded(run: Run, said: LlmCall) -> int:
    """Journals with an answer what embedding the question took; returns what it cost."""
    spent, run.embedding = run.embedding, EmbeddingUsage()
    said.embedding.CopyFrom(spent)
    telemetry.count_cost(run.record.agent_id, run.record.name.tenant, "embedding", spent.model, spent.cost_micros)
    return spent.cost_micros


def conversation_of(run: Run) -> Conversation:
    """Returns all that a run's prompts may hold."""
    return Conversation(run.history, run.prompt, run.state.messages)


def is_answer(step: Sequence[StepEvent]) -> bool:
    """Whether a step ends its task: words, with nothing to do, not handed back and not held back."""
    held = (GUARDRAIL_ACTION_ASK, GUARDRAIL_ACTION_BLOCK)
    return not step[0].llm_call.planned_calls and not any(
        event.HasField("correction")
        or (event.guardrail.point == GUARDRAIL_POINT_OUTPUT and event.guardrail.action in held)
        for event in step
    )


def with_ids(answer: Answer, step: int) -> list[Call]:
    """Returns the answer's calls as they can be journaled, with ids of their own, whatever the provider sent."""
    if not answer.calls:
        return []
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
        cost_micros=pin.tool.cost_micros,
    )
    intent.deadline.FromMilliseconds(int((time.time() + min(pin.timeout_s, run.seconds_left)) * 1000))
    return intent


class Notices:
    """Journals what is done about models that fail, at once: an outage is seen while it lasts.

    Their keys hold the claim's fence, so that those of a worker before are no obstacle.
    """

    def __init__(self, run: Run, deltas: "Deltas", screen: Screen | Open) -> None:
        self._run = run
        self._deltas = deltas
        self._screen = screen
        self._number = 0

    async def tell(self, notice: RunnerNotice) -> None:
        """Journals a notice; where another model takes over, its words begin anew."""
        if notice.kind == NOTICE_KIND_FELL_BACK:
            self._screen.restart()
            self._deltas.restart()
        self._number += 1
        run = self._run
        await run.notice(f"model:{run.claim.fence}:{run.state.step + 1}:{self._number}", notice)


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

    def restart(self) -> None:
        """Drops what is not shown yet; what comes now begins the text anew, at offset 0."""
        self._text, self._offset = "", 0

    def _frame(self) -> StepEvent | None:
        text, self._text = self._text, ""
        offset, self._offset = self._offset, self._offset + len(text)
        return StepEvent(step=self._step, delta=TextDelta(text=text, offset=offset)) if text else None

    async def close(self) -> None:
        """Shows what is left."""
        await self._passing.close()
