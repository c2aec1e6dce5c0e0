"""Acting: every planned call gets its outcome, all of a step at once."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from meshwright.agents import inputs, spans
from meshwright.agents.guard import Guard
from meshwright.agents.inputs import Policy
from meshwright.agents.models.model import Call, JsonObject
from meshwright.agents.parking import wait_for_others
from meshwright.agents.passing import Passing
from meshwright.agents.planner import tool_intent
from meshwright.agents.purse import Purse
from meshwright.agents.remembering import EMBEDDED
from meshwright.agents.run import Run
from meshwright.agents.supervisor import Supervisor
from meshwright.agents.task import Record
from meshwright.agents.toolbox import Toolbox
from meshwright.agents.values import DEEPEST, arguments_of, fitting, is_deep, parsed_result
from meshwright.core import telemetry
from meshwright.core.canonical import to_value
from meshwright.core.errors import (
    AbortedError,
    DeadlineExceededError,
    GrantInvalidError,
    InvocationOpenError,
    MeshError,
    OutcomeUnknownError,
    OverloadedError,
    RejectedError,
    ResultTooLargeError,
    StoreUnavailableError,
    ToolCircuitOpenError,
    ToolRateLimitedError,
    UnavailableError,
)
from meshwright.gen.agents.v1.step_event_pb2 import (
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    TOOL_OUTCOME_UNKNOWN,
    Delegation,
    InputResolved,
    StepEvent,
    ToolCall,
    ToolOutcome,
    ToolProgress,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import DECISION_REJECT, DECISION_SKIP, EmbeddingUsage
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome

UNDECIDED = InputResolved()
NONE = EmbeddingUsage()
NOT_BEGUN = (OverloadedError, ToolCircuitOpenError, ToolRateLimitedError)
OPEN_RETRY_S = 0.5
REPORT_S, MAX_REPORT = 0.1, 1_000
PATIENCE_S = 15.0
"""How long a call is tried again whose host cannot be reached, or does not know us yet; its key stays the same."""
CALL_GRACE_S = 10.0
"""A call may wait as long again for one with the same key, and a little for store and host."""


class Actor:
    """Does what the model asked for, by tools and by other agents.

    Args:
        toolbox: Calls tools.
        supervisor: Hands work on.
        guard: Looks at results.
        policy: How the agent asks people.
        purse: Pays for calls that are made again.
    """

    def __init__(self, toolbox: Toolbox, supervisor: Supervisor, guard: Guard, policy: Policy, purse: Purse) -> None:
        self._guard = guard
        self._purse = purse
        self._toolbox = toolbox
        self._policy = policy
        self._supervisor = supervisor

    async def act(self, run: Run) -> None:
        """Brings every open call of the step to its outcome; after a takeover too, by the same keys.

        Raises:
            Parked: Children or people take long; the task goes on when they are done.
            FencedError: Another process owns the task.
        """
        work: list[Coroutine[Any, Any, None]] = [self._call(run, call) for call in run.state.actionable]
        for call in run.state.children:
            delegation = run.state.intents[call.call_id]
            assert isinstance(delegation, Delegation)
            work.append(self._supervisor.submit(run, call, delegation))
        bereft = [call for call in run.state.open_calls if call.call_id in run.state.failed]
        work += [self._supervisor.replace(run, call) for call in bereft]
        await together(work)
        if run.state.is_waiting:
            await wait_for_others(run)

    async def ahead(self, run: Run, step: Sequence[StepEvent]) -> list[StepEvent]:
        """Begins those of a step's calls that leave no trace, and cost nothing, before they are journaled.

        Returns:
            Outcomes that are there at once, to be written in the step's own script; `act` waits for the others.
        """
        planned = {call.call_id: call for call in step[0].llm_call.planned_calls}
        asked = {event.input_requested.call_id for event in step if event.HasField("input_requested")}
        for event in step:
            intent = event.tool_call
            pin = run.tools.get(intent.tool)
            if intent.cost_micros or intent.call_id in asked:  # not before the money is set aside, or a person agrees
                continue
            if pin and self._toolbox.is_free(pin):
                call = self._told(run, event.step, arguments_of(planned[intent.call_id]), intent)
                run.ahead[intent.call_id] = asyncio.create_task(call)
        if run.ahead:
            await asyncio.sleep(0)  # a tool that waits for nothing has ended after one turn of the loop
        ended = [call_id for call_id, work in run.ahead.items() if work.done() and not work.exception()]
        intents = {event.tool_call.call_id: event.tool_call for event in step}
        events: list[StepEvent] = []
        for call_id in ended:
            outcome, intent = run.ahead.pop(call_id).result(), intents[call_id]
            result = result_of(call_id, outcome)
            pay(result, run.record, intent.tool, intent.cost_micros, embedding=outcome.embedding)
            events += await self._guard.result(run, intent.tool, result, step[0].step)
        return events

    async def _call(self, run: Run, call: Call) -> None:
        started, is_free, embedding = time.perf_counter(), False, NONE
        decided = run.state.decided.get(call.call_id, UNDECIDED)
        try:
            check_decision(decided)
            outcome = await self._outcome(run, call, await self._intent(run, call))
            result, embedding = result_of(call.call_id, outcome), outcome.embedding
        except OutcomeUnknownError as error:
            if decided.decision != DECISION_SKIP:
                await self._ask(run, call, error)
                return
            result = failure_of(call.call_id, error, TOOL_OUTCOME_UNKNOWN)
        except RejectedError as error:
            result = failure_of(call.call_id, error, TOOL_OUTCOME_DENIED)
        except MeshError as error:
            result = failure_of(call.call_id, error, TOOL_OUTCOME_ERROR)
            is_free = isinstance(error, NOT_BEGUN)
        result.latency_ms = int((time.perf_counter() - started) * 1000)
        held = run.state.account.held_for(call.call_id)
        pay(result, run.record, call.tool, held, embedding=embedding, is_free=is_free)
        await run.append(f"result:{run.state.step}:{call.call_id}", *await self._guard.result(run, call.tool, result))

    async def _intent(self, run: Run, call: Call) -> ToolCall:
        """Returns what was journaled before the call; one that a person has run again gets a key of its own."""
        intent = run.state.intents[call.call_id]
        assert isinstance(intent, ToolCall)
        retry = run.state.retries.get(call.call_id, 0)
        if retry:
            again = tool_intent(run, run.state.step, call, run.tools[call.tool], retry)
            again.cost_micros = intent.cost_micros
            await self._purse.afford(run, f"intent:{run.state.step}:{call.call_id}:{retry}", run.event(tool_call=again))
            return again
        return intent

    async def _ask(self, run: Run, call: Call, error: OutcomeUnknownError) -> None:
        """Leaves to a person what nobody here can know."""
        intent = run.state.intents[call.call_id]
        assert isinstance(intent, ToolCall)
        prompt = f"{error.message}: run it again, go on without it, or end the task?"
        turn = f"{run.state.step}:{run.state.retries.get(call.call_id, 0)}"
        pending = inputs.asked(
            inputs.UNKNOWN, run.task_id, prompt, self._policy, now_ms=run.store_ms, call_id=call.call_id, turn=turn
        )
        event = run.event(input_requested=inputs.about(pending, intent))
        await run.append(f"unknown:{turn}:{call.call_id}", event)

    async def _outcome(self, run: Run, call: Call, intent: ToolCall) -> Outcome:
        pin = run.tools[call.tool]
        patience = time.monotonic() + PATIENCE_S
        while True:
            try:
                with run.awaiting(2 * pin.timeout_s + CALL_GRACE_S):
                    if call.call_id in run.ahead:
                        return await run.ahead.pop(call.call_id)
                    return await self._told(run, run.state.step, call.arguments, intent)
            except (InvocationOpenError, StoreUnavailableError):
                pass  # begun before a crash, or no ledger: the same key again
            except NOT_BEGUN as error:
                pause_s = error.retry_after_s or OPEN_RETRY_S
                if time.monotonic() + pause_s > patience:
                    raise
                await asyncio.sleep(pause_s)
                continue
            except (UnavailableError, AbortedError, DeadlineExceededError, GrantInvalidError) as error:
                if time.monotonic() > patience:  # its host or the registry is not just starting
                    return await self._toolbox.forgo(pin, intent, run.grant(), error)
            await asyncio.sleep(OPEN_RETRY_S)

    async def _told(self, run: Run, step: int, arguments: JsonObject, intent: ToolCall) -> Outcome:
        """Calls a tool, and shows meanwhile how far it has come."""
        progress = Progress(run, step, intent.call_id)
        try:
            with spans.tool(step, intent) as current:
                outcome = await self._toolbox.call(
                    run.tools[intent.tool], arguments, intent, run.grant(), run.token, report=progress.report
                )
                spans.returned(current, outcome)
                return outcome
        finally:
            await progress.close()


class Progress:
    """Shows how far a call has come: the newest report, ten times a second at the most."""

    def __init__(self, run: Run, step: int, call_id: str) -> None:
        self._step = step
        self._call_id = call_id
        self._newest: ToolProgress | None = None
        self._passing = Passing(run.journal, run.feeds, run.record.name, REPORT_S, self._frame)

    def report(self, fraction: float, message: str) -> None:
        """Takes a report."""
        self._newest = ToolProgress(call_id=self._call_id, fraction=fraction, message=fitting(message)[:MAX_REPORT])
        self._passing.came()

    def _frame(self) -> StepEvent | None:
        newest, self._newest = self._newest, None
        return StepEvent(step=self._step, progress=newest) if newest else None

    async def close(self) -> None:
        """Shows the last one."""
        await self._passing.close()


def check_decision(decided: InputResolved) -> None:
    """Lets a call pass that nobody has refused.

    Raises:
        RejectedError: A person does not allow it, or nobody did in time.
        OutcomeUnknownError: A person goes on without knowing whether it ran.
    """
    if decided.decision == DECISION_REJECT:
        raise RejectedError(decided.reason or "a person did not allow this call")
    if decided.decision == DECISION_SKIP:
        raise OutcomeUnknownError(decided.reason or "the call may or may not have run; it is not run again")


def result_of(call_id: str, outcome: Outcome) -> ToolResult:
    """Turns a tool's outcome into what the journal keeps."""
    if outcome.HasField("error"):
        return ToolResult(call_id=call_id, outcome=TOOL_OUTCOME_ERROR, error=outcome.error, replayed=outcome.replayed)
    result = parsed_result(outcome.result_json)
    if is_deep(result):
        error = ResultTooLargeError(f"the result is nested deeper than {DEEPEST} levels")
        return failure_of(call_id, error, TOOL_OUTCOME_ERROR)
    return ToolResult(call_id=call_id, outcome=TOOL_OUTCOME_OK, result=to_value(result), replayed=outcome.replayed)


def pay(
    result: ToolResult, record: Record, tool: str, held: int, *, embedding: EmbeddingUsage, is_free: bool = False
) -> None:
    """Settles what was set aside for a call: all of it is spent where the tool was reached, or may have been.

    Args:
        result: Of the call; is told what it cost.
        record: Of the task that called.
        tool: What was called; one that embeds costs what that took.
        held: What was set aside.
        embedding: What the tool says that it took; empty: nothing, or its word is lost.
        is_free: The tool was not reached.
    """
    agent_id, tenant = record.agent_id, record.name.tenant
    result.reserved_micros = held
    if tool in EMBEDDED:
        if held and result.outcome == TOOL_OUTCOME_UNKNOWN:
            embedding = EmbeddingUsage(cost_micros=held, estimated=True)
        if embedding.ByteSize():
            result.embedding.CopyFrom(embedding)
        telemetry.count_cost(agent_id, tenant, "embedding", embedding.model, embedding.cost_micros)
    elif held and result.outcome != TOOL_OUTCOME_DENIED and not is_free:
        result.cost_micros = held
        telemetry.count_cost(agent_id, tenant, "tool", tool, held)


def failure_of(call_id: str, error: MeshError, outcome: ToolOutcome.ValueType) -> ToolResult:
    """Turns what kept a call from its result into what the journal keeps."""
    return ToolResult(call_id=call_id, outcome=outcome, error=error.to_status())


async def together(work: list[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines at once; the first failure ends the others and is raised as itself."""
    if len(work) == 1:
        return await work[0]
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
