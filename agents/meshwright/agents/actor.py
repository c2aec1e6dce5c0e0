"""Acting: every planned call gets its outcome, all of a step at once."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from google.protobuf.struct_pb2 import Value

from meshwright.agents.models.model import Call
from meshwright.agents.run import Run
from meshwright.agents.supervisor import Supervisor
from meshwright.agents.toolbox import Toolbox
from meshwright.agents.values import DEEPEST, is_deep, parsed_result
from meshwright.core.canonical import to_value
from meshwright.core.errors import (
    InvocationOpenError,
    MeshError,
    OutcomeUnknownError,
    ResultTooLargeError,
    StoreUnavailableError,
)
from meshwright.gen.agents.v1.step_event_pb2 import (
    TOOL_OUTCOME_ERROR,
    TOOL_OUTCOME_OK,
    TOOL_OUTCOME_UNKNOWN,
    Delegation,
    ToolCall,
    ToolResult,
)
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome

OPEN_RETRY_S = 0.5


class Actor:
    """Does what the model asked for, by tools and by other agents."""

    def __init__(self, toolbox: Toolbox, supervisor: Supervisor) -> None:
        self._toolbox = toolbox
        self._supervisor = supervisor

    async def act(self, run: Run) -> None:
        """Brings every open call of the step to its outcome; after a takeover too, by the same keys.

        Raises:
            Parked: Children take long; the task goes on when they have ended.
            FencedError: Another process owns the task.
        """
        work: list[Coroutine[Any, Any, None]] = []
        for call in run.state.open_calls:
            match run.state.intents[call.call_id]:
                case ToolCall() as intent:
                    work.append(self._call(run, call, intent))
                case Delegation() as delegation:
                    work.append(self._supervisor.submit(run, call, delegation))
        await together(work)
        if run.state.open_calls:
            await self._supervisor.wait(run)

    async def _call(self, run: Run, call: Call, intent: ToolCall) -> None:
        started = time.perf_counter()
        result = ToolResult(call_id=call.call_id, outcome=TOOL_OUTCOME_OK)
        try:
            outcome = await self._outcome(run, call, intent)
            result.replayed = outcome.replayed
            if outcome.HasField("error"):
                result.outcome = TOOL_OUTCOME_ERROR
                result.error.CopyFrom(outcome.error)
            else:
                result.result.CopyFrom(journaled(outcome.result_json))
        except MeshError as error:
            is_unknown = isinstance(error, OutcomeUnknownError)
            result.outcome = TOOL_OUTCOME_UNKNOWN if is_unknown else TOOL_OUTCOME_ERROR
            result.error.CopyFrom(error.to_status())
        result.latency_ms = int((time.perf_counter() - started) * 1000)
        await run.append(f"result:{run.state.step}:{call.call_id}", run.event(tool_result=result))

    async def _outcome(self, run: Run, call: Call, intent: ToolCall) -> Outcome:
        pin = run.tools[call.tool]
        while True:
            grant, token = run.grant()
            try:
                return await self._toolbox.call(pin, call.arguments, intent.idempotency_key, grant, token)
            except (InvocationOpenError, StoreUnavailableError):  # begun before a crash, or no ledger: same key again
                await asyncio.sleep(OPEN_RETRY_S)


def journaled(result_json: str) -> Value:
    """Turns a tool's result into what the journal keeps.

    Raises:
        ResultTooLargeError: It is nested too deeply.
    """
    result = parsed_result(result_json)
    if is_deep(result):
        raise ResultTooLargeError(f"the result is nested deeper than {DEEPEST} levels")
    return to_value(result)


async def together(work: list[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines at once; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
