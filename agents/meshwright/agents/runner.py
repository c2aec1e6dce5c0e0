"""The runner: an agent's whole loop, on one screen."""

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from meshwright.agents.actor import Actor
from meshwright.agents.authority import is_allowed
from meshwright.agents.memory import Memory
from meshwright.agents.parking import Parked, wait_for_turn
from meshwright.agents.planner import Planner
from meshwright.agents.result import STATES, STOP, End, cancelled, result_of, timed_out
from meshwright.agents.run import Run, persistently
from meshwright.agents.session import Sessions
from meshwright.agents.toolbox import Pin, Toolbox
from meshwright.core import telemetry
from meshwright.core.errors import FencedError, InternalError, MeshError, RejectedError, TaskCancelledError
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.step_event_pb2 import (
    NOTICE_KIND_RESUMED,
    NOTICE_KIND_TAKEN_OVER,
    NOTICE_KIND_TOOL_DEPRECATED,
    NOTICE_KIND_VERSION_CHANGED,
    NoticeKind,
    RunnerNotice,
    StepEvent,
    TaskStarted,
)
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_ERROR,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    FinishReason,
)

log = structlog.get_logger("runner")


class Runner:
    """Runs claimed tasks of one agent: budget → memory → plan → act → journal, until an answer stands."""

    def __init__(
        self, planner: Planner, actor: Actor, toolbox: Toolbox, *, sessions: Sessions, memory: Memory, version: str
    ) -> None:
        self._planner = planner
        self._actor = actor
        self._toolbox = toolbox
        self._sessions = sessions
        self._memory = memory
        self._version = version

    async def run(self, run: Run) -> None:
        """Works on a task until it ends, parks, or belongs to somebody else; a task's failure is its result."""
        with telemetry.span("task", run.record.trace, task_id=run.task_id, agent=run.record.agent_id):
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
            return End(FINISH_REASON_ERROR, error)
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
            if run.state.verdict:
                raise RejectedError(run.state.verdict)
            if run.state.open_calls:
                await self._actor.act(run)
            elif run.state.is_answered:
                return await self.finish(run, STOP)
            elif await self._planner.is_handed_over(run):
                continue
            elif reason := run.budget.exhausted(run.state):
                return await self.finish(run, End(reason))
            else:
                prompt = await self._planner.prompt(run)
                if prompt is None:
                    return await self.finish(run, End(FINISH_REASON_TOKEN_BUDGET_EXCEEDED))
                step = await self._planner.ask(run, prompt)
                if not step[0].llm_call.planned_calls:
                    return await self.finish(run, STOP, step)
                step += await self._actor.ahead(run, step)
                await run.append(f"step:{run.state.step + 1}", *step)

    async def _begin(self, run: Run) -> None:
        """Folds the journal and says how this run came about; the task's first event pins its tools."""
        if run.record.sequence:
            await run.catch_up()
        if run.record.cancel:
            raise TaskCancelledError(run.record.cancel)
        if not run.state.sequence:
            await run.append("started", self.started(run.record.parent_id, run.record.attempt))
        elif run.record.attempt > max(1, run.state.attempt):
            telemetry.TAKEOVERS.labels(run.record.agent_id).inc()
            await self._say(run, NOTICE_KIND_TAKEN_OVER, "the worker before was lost; goes on after its last entry")
        elif run.record.sequence:
            await self._say(run, NOTICE_KIND_RESUMED, "goes on")
        if run.state.version not in ("", self._version):
            detail = f"begun by version {run.state.version}, goes on with {self._version}"
            await self._say(run, NOTICE_KIND_VERSION_CHANGED, detail, key=f"version:{self._version}")
        await wait_for_turn(run, self._sessions)
        tools = await persistently(self._toolbox.pinned, run.state.pins)
        run.tools = narrowed(tools, run.request.allowed_tools)
        for pin in run.tools.values():
            if pin.tool.HasField("sunset_time"):
                await self._say(run, NOTICE_KIND_TOOL_DEPRECATED, deprecation(pin), key=f"deprecated:{pin.id}")
        run.history = await persistently(self._memory.load, run.record.name, run.request.session_id)

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
        if end is STOP and run.budget.overspent(run.state):
            end = End(FINISH_REASON_TOKEN_BUDGET_EXCEEDED)
        result = result_of(run, end, self._version)
        try:
            await run.finish(STATES[result.status], *step, run.event(result=result))
        except FencedError:
            log.warning("end_came_too_late", task_id=run.task_id, attempt=run.record.attempt)
            return
        reason = FinishReason.Name(end.reason)
        telemetry.TASKS_ENDED.labels(run.record.agent_id, STATES[result.status], reason).inc()
        log.info("ended", task_id=run.task_id, state=STATES[result.status], reason=reason, steps=run.state.step)


def narrowed(tools: dict[str, Pin], allowed: Sequence[str]) -> dict[str, Pin]:
    """Keeps the tools that a request allows; none named: all of them."""
    return {name: pin for name, pin in tools.items() if is_allowed(name, allowed)}


def deprecation(pin: Pin) -> str:
    """Says until when a tool should be relied on, and what takes its place."""
    instead = f": {pin.tool.replaced_by} takes its place" if pin.tool.replaced_by else ""
    return f"{pin.id} goes out of use on {pin.tool.sunset_time.ToDatetime():%Y-%m-%d}{instead}"
