"""The runner: an agent's whole loop, on one screen."""

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from meshwright.agents import spans
from meshwright.agents.account import add
from meshwright.agents.actor import Actor
from meshwright.agents.authority import is_allowed
from meshwright.agents.budget import Shortfall
from meshwright.agents.degradation import less_of, notice_of_what_is_missing
from meshwright.agents.guard import Guard
from meshwright.agents.memory import Memory
from meshwright.agents.outage import Outage
from meshwright.agents.parking import Parked, wait_for_turn
from meshwright.agents.planner import Planner, is_answer
from meshwright.agents.responses import Responses
from meshwright.agents.result import (
    OUT_OF_BUDGET,
    STATES,
    STOP,
    End,
    cancelled,
    failed,
    result_of,
    say_there_is_nothing,
    settled,
    timed_out,
)
from meshwright.agents.run import Run, persistently
from meshwright.agents.session import Sessions
from meshwright.agents.shortfall import is_covered
from meshwright.agents.storage import Storage
from meshwright.agents.toolbox import Pin, Toolbox
from meshwright.agents.typed import ResultType
from meshwright.core import telemetry, tracing
from meshwright.core.errors import (
    FencedError,
    InternalError,
    MeshError,
    TaskCancelledError,
)
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_RESUMED,
    NOTICE_KIND_TAKEN_OVER,
    NOTICE_KIND_TOOL_DEPRECATED,
    NOTICE_KIND_VERSION_CHANGED,
    DegradationLevel,
    NoticeKind,
    RunnerNotice,
    StepEvent,
    TaskStarted,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_ERROR,
    TASK_STATUS_FAILED,
    FinishReason,
    TaskResponse,
)

log = structlog.get_logger("runner")
PATIENCE_S = 10.0
"""How long an agent that degrades waits for tools that only the registry knows."""


class Runner:
    """Runs claimed tasks of one agent: budget → memory → plan → act → journal, until an answer stands."""

    def __init__(
        self,
        planner: Planner,
        actor: Actor,
        toolbox: Toolbox,
        guard: Guard,
        *,
        sessions: Sessions,
        memory: Memory,
        version: str,
        outage: Outage,
        responses: Responses,
        storage: Storage,
        result_type: ResultType | None = None,
    ) -> None:
        self._planner = planner
        self._actor = actor
        self._toolbox = toolbox
        self._guard = guard
        self._sessions = sessions
        self._memory = memory
        self._version = version
        self._outage = outage
        self._responses = responses
        self._storage = storage
        self._result_type = result_type

    async def run(self, run: Run) -> None:
        """Works on a task until it ends, parks, or belongs to somebody else; a task's failure is its result."""
        structlog.contextvars.bind_contextvars(task_id=run.task_id)  # as long as the worker's context for the task
        with spans.task(run.record) as current:
            run.span_id = tracing.span_id_of(current)
            end = await self._guarded(run)
            if end:
                await self.finish(run, end)

    async def _guarded(self, run: Run) -> End | None:
        """Runs the loop and says how the task ends, where the loop has not ended it."""
        limit = Limit(run.seconds_left)
        try:
            with limit:
                await self._begin(run)
                await self._loop(run)
        except (Parked, FencedError) as given_up:
            log.info("given_up", task_id=run.task_id, why=type(given_up).__name__, attempt=run.record.attempt)
        except TaskCancelledError as error:
            return cancelled(error.message)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not run.stop_reason or this is None:
                raise
            this.uncancel()
            return cancelled(run.stop_reason)
        except MeshError as error:
            return failed(error)
        except Exception:
            if limit.is_over:
                return timed_out()
            error_id = secrets.token_hex(6)
            log.exception("task_failed", task_id=run.task_id, error_id=error_id)
            return End(FINISH_REASON_ERROR, InternalError(f"internal error {error_id}: the agent's log says more"))
        finally:
            run.drop_ahead()
        return None

    async def _loop(self, run: Run) -> None:
        while True:
            run.state.check()
            if run.state.is_waiting:
                await self._actor.act(run)
            elif run.state.is_answered:
                return await self.finish(run, STOP)
            elif await self._planner.is_handed_over(run):
                continue
            elif looping := run.state.repeats.notice():
                await run.notice(f"loop:{run.state.step}", looping)
            elif isinstance(prompt := await self._planner.prompt(run), Shortfall):
                if not await is_covered(run, prompt, self._planner.policy):
                    what = "shared_step" if prompt.shared else "step"
                    telemetry.count_refusal(run.record.agent_id, run.record.name.tenant, what)
                    return await self.finish(run, End(prompt.reason, prompt.error))
            else:
                step = await self._planner.ask(run, prompt)
                if is_answer(step):
                    return await self.finish(run, STOP, step)
                step += await self._actor.ahead(run, step)
                await self._planner.journal(run, step)

    async def _begin(self, run: Run) -> None:
        """Folds the journal and says how this run came about; the task's first event pins its tools."""
        if run.record.sequence:
            await run.catch_up()
        if run.record.cancel:
            raise TaskCancelledError(run.record.cancel)
        if not run.state.sequence:
            tracing.link_to_submission(run.record.trace)
            await run.append("started", self.started(run.record.parent_id, run.record.attempt))
        elif run.record.attempt > max(1, run.state.attempt):
            telemetry.TAKEOVERS.labels(run.record.agent_id).inc()
            log.warning("taken_over", task_id=run.task_id, agent=run.record.agent_id, attempt=run.record.attempt)
            spans.follow_lost(run.record, run.before)
            await self._say(run, NOTICE_KIND_TAKEN_OVER, "the worker before was lost; goes on after its last entry")
        elif run.record.sequence:
            spans.follow(run.record, run.before)
            await self._say(run, NOTICE_KIND_RESUMED, "goes on")
        if run.state.version not in ("", self._version):
            detail = f"begun by version {run.state.version}, goes on with {self._version}"
            await self._say(run, NOTICE_KIND_VERSION_CHANGED, detail, key=f"version:{self._version}")
        run.result_type = ResultType.of(run.request, self._result_type)
        await wait_for_turn(run, self._sessions)
        run.tools = narrowed(await self._tools(run), run.request.allowed_tools)
        for pin in run.tools.values():
            if pin.tool.HasField("sunset_time"):
                await self._say(run, NOTICE_KIND_TOOL_DEPRECATED, deprecation(pin), key=f"deprecated:{pin.id}")
        run.history = await persistently(self._memory.load, run.record.name, run.request.session_id)
        await self._guard.admit(run)

    async def _tools(self, run: Run) -> dict[str, Pin]:
        """Returns the task's tools; an agent that degrades waits for a registry that is down no longer than it must."""
        pins = run.state.pins
        limit = asyncio.timeout(PATIENCE_S if self._outage.is_degrading else None)
        try:
            async with limit:
                return await persistently(self._toolbox.pinned, pins)
        except TimeoutError:
            if not limit.expired():
                raise
        known = self._toolbox.known(pins)
        missing = set(pins) - {pin.id for pin in known.values()}
        await run.notice(f"missing:{run.claim.fence}", notice_of_what_is_missing(missing))
        return known

    async def _say(self, run: Run, kind: NoticeKind.ValueType, detail: str, key: str = "") -> None:
        await run.notice(key or f"claim:{run.claim.fence}", RunnerNotice(kind=kind, detail=detail))

    def started(self, parent_id: str, attempt: int = 1) -> StepEvent:
        """Makes the first event of a journal."""
        started = TaskStarted(
            agent_id=self._planner.agent_id,
            agent_version=self._version,
            parent_task_id=parent_id,
            tool_pins=self._toolbox.current,
        )
        return StepEvent(attempt=attempt, started=started)

    async def finish(self, run: Run, end: End, step: Sequence[StepEvent] = ()) -> None:
        """Ends a task with its result; the last answer, if there is one, is written in the same script."""
        for event in step:
            run.state.apply(event)
        end, told = self._less(run, settled(run, end))
        if end is STOP and (reason := run.budget.overspent(run.state)):
            end = End(reason)
        if end.reason in OUT_OF_BUDGET:
            told += run.budget_notices()
        add(run.state.usage, run.state.account.end())
        result = result_of(run, end, self._version)
        try:
            told += await self._guard.last_words(run, result)
            say_there_is_nothing(result)
            if step and not told:
                await self._responses.keep(run, step[0].llm_call, result)
            await self._storage.charge(run, result, [*step, *told])
            await run.finish(STATES[result.status], *step, *told, run.event(result=result))
        except FencedError:
            log.warning("end_came_too_late", task_id=run.task_id, attempt=run.record.attempt)
            return
        why = FinishReason.Name(end.reason)
        spans.ended(result)
        telemetry.TASKS_ENDED.labels(run.record.agent_id, STATES[result.status], why).inc()
        telemetry.TASK_SECONDS.labels(run.record.agent_id).observe(max(0, run.store_ms - run.record.created) / 1000)
        tell_end(result)

    def _less(self, run: Run, end: End) -> tuple[End, list[StepEvent]]:
        """Returns how a task ends whose agent may give less instead of failing, and what is told of that."""
        less = less_of(end, run.state, self._outage, run.request.on_budget_exceeded, run.recalled)
        if less.notice is None:
            return less.end, []
        level = DegradationLevel.Name(less.notice.level).removeprefix("DEGRADATION_LEVEL_")
        log.warning("degraded", task_id=run.task_id, degradation=level, error=end.error.message if end.error else "")
        telemetry.DEGRADED.labels(run.record.agent_id, level).inc()
        told = run.event(notice=less.notice)
        run.state.apply(told)
        return less.end, [told]


def tell_end(result: TaskResponse) -> None:
    """Logs how a task has ended: why without its words, which may quote the answer."""
    reason = FinishReason.Name(result.finish_reason)
    if result.finish_reason == FINISH_REASON_ERROR:  # says nothing; the error's reason does
        reason = MeshError.from_status(result.error).reason
    facts = {"state": STATES[result.status], "reason": reason, "steps": result.steps_used}
    if result.status == TASK_STATUS_FAILED:
        log.warning("ended", task_id=result.task_id, attempt=result.attempt, **facts)
    else:
        log.info("ended", task_id=result.task_id, attempt=result.attempt, **facts)


def narrowed(tools: dict[str, Pin], allowed: Sequence[str]) -> dict[str, Pin]:
    """Keeps the tools that a request allows; none named: all of them."""
    return {name: pin for name, pin in tools.items() if is_allowed(name, allowed)}


def deprecation(pin: Pin) -> str:
    """Says until when a tool should be relied on, and what takes its place."""
    instead = f": {pin.tool.replaced_by} takes its place" if pin.tool.replaced_by else ""
    return f"{pin.id} goes out of use on {pin.tool.sunset_time.ToDatetime():%Y-%m-%d}{instead}"
