"""One run of a tool: its time, its attempts, and what came of it."""

import asyncio
import copy
import random
import time
from typing import Any

import structlog

from meshwright.core import telemetry
from meshwright.core.breaker import Circuit
from meshwright.core.errors import DeadlineExceededError, MeshError, ToolFailedError
from meshwright.core.limit import Limit
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.audit import told
from meshwright.registry.call import Call
from meshwright.registry.invocation import INVOCATION, Invocation
from meshwright.registry.outcome import checked_result, failed
from meshwright.registry.progress import Reporter
from meshwright.registry.retryable import Retryable
from meshwright.registry.threads import THREADS

log = structlog.get_logger("tool_host")
MOST_ATTEMPTS = 3
FIRST_PAUSE_S = 0.1
ABOUT_ARGUMENTS = (ValueError, LookupError, ArithmeticError, FileNotFoundError)
"""What a function raises when it was asked for the wrong thing: no sign that its backend is ill."""


class Execution:
    """Runs a tool for one call.

    Args:
        call: What runs.
        epoch: As the breaker let it through.
    """

    def __init__(self, call: Call, epoch: int) -> None:
        self._call = call
        self._hosted = call.hosted
        self._epoch = epoch
        self._attempts = 0
        self._began = time.perf_counter()
        self._limit = Limit(call.hosted.tool.timeout_s)
        self._ends = time.monotonic() + call.hosted.tool.timeout_s

    async def outcome(self) -> Outcome:
        """Runs it to its end: whatever fails in the tool is data.

        Raises:
            asyncio.CancelledError: The caller has gone.
        """
        grant, call = self._call.grant, self._call
        log.debug("tool_begun", tool=self._hosted.pin, task_id=grant.task_id)
        reporter = Reporter(call.on_progress) if call.on_progress else None
        invocation = Invocation(
            grant.tenant,
            grant.principal,
            grant.task_id,
            call.key,
            grant.agent_id,
            grant.session_id,
            is_tainted=grant.tainted,
            ends=self._ends,
            reporter=reporter,
        )
        is_failure = False
        running, threads = INVOCATION.set(invocation), THREADS.set(self._hosted.threads)
        try:
            with self._limit:
                result = await self._result()
            outcome = checked_result(self._hosted, result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            outcome, is_failure = self._failed(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool may raise anything; its failure is data
            outcome, is_failure = self._failed(error)
        finally:
            INVOCATION.reset(running)
            THREADS.reset(threads)
            if reporter:
                reporter.end()
        self._hosted.breaker.record(self._epoch, is_failure=is_failure)
        if invocation.embedding.model:
            outcome.embedding.CopyFrom(invocation.embedding)
        return self._counted(outcome)

    async def _result(self) -> Any:
        """Tries until the tool answers, where trying again helps and is allowed."""
        while True:
            self._attempts += 1
            try:
                return await self._hosted.tool.run(copy.deepcopy(self._call.arguments))
            except (Retryable, MeshError) as error:
                pause_s = max(pause(self._attempts), error.retry_after_s or 0.0)
                if not is_passing(error) or not self._may_try_again(pause_s):
                    raise
                self._hosted.breaker.record(self._epoch, is_failure=True)
                if self._hosted.breaker.state is not Circuit.CLOSED:
                    raise
                log.info("tool_tried_again", tool=self._hosted.pin, task_id=self._call.grant.task_id)
            await asyncio.sleep(pause_s)

    def _may_try_again(self, pause_s: float) -> bool:
        has_time = time.monotonic() + pause_s < self._ends
        return self._hosted.may_repeat and self._attempts < MOST_ATTEMPTS and has_time

    def _failed(self, error: BaseException) -> tuple[Outcome, bool]:
        """Returns a failure as data, and whether it speaks against the backend."""
        name = self._hosted.tool.name
        if isinstance(error, MeshError):
            return failed(error), is_passing(error)
        kind = type(error).__name__
        text = "" if self._hosted.redaction else f": {error}"  # a value that nobody is to see may stand in it
        log.warning("tool_failed", tool=self._hosted.pin, task_id=self._call.grant.task_id, error=kind + text)
        if self._limit.is_over:
            return failed(DeadlineExceededError(f"{name} took longer than {self._hosted.tool.timeout_s:g} s")), True
        if isinstance(error, Retryable):
            return failed(ToolFailedError(f"{name}: {error}", retry_after_s=error.retry_after_s)), True
        if isinstance(error, asyncio.CancelledError):
            return failed(ToolFailedError(f"{name} cancelled itself")), True
        return failed(ToolFailedError(f"{name}: {kind}{text}")), not isinstance(error, ABOUT_ARGUMENTS)

    def _counted(self, outcome: Outcome) -> Outcome:
        telemetry.TOOL_CALLS.labels(self._hosted.tool.name, "error" if outcome.HasField("error") else "ok").inc()
        seconds = time.perf_counter() - self._began
        telemetry.TOOL_SECONDS.labels(self._hosted.tool.name).observe(seconds)
        facts = {"outcome": told(outcome), "ms": round(seconds * 1000)}
        log.debug("tool_answered", tool=self._hosted.pin, task_id=self._call.grant.task_id, **facts)
        if self._attempts > 1:
            outcome.annotations["attempts"] = self._attempts
        return outcome


def is_passing(error: BaseException) -> bool:
    """Whether a tool marks its failure as one that may pass."""
    return isinstance(error, Retryable) or (isinstance(error, MeshError) and error.is_retryable)


def pause(attempts: int) -> float:
    """Returns the seconds before another attempt: they double, and no two callers come back at once."""
    return FIRST_PAUSE_S * (1 << (attempts - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
