"""The tool host: the one chain of checks in front of every tool, and the one place where tools run."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from google.rpc import status_pb2

from meshwright.core import telemetry
from meshwright.core.canonical import from_struct
from meshwright.core.errors import (
    DeadlineExceededError,
    FencedError,
    InvalidRequestError,
    InvocationOpenError,
    MeshError,
    OutcomeUnknownError,
    ResultTooLargeError,
    ToolFailedError,
    ToolNotFoundError,
    ToolResultInvalidError,
)
from meshwright.core.grant import check_tool
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Effect, Tool
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.schema import Schema, explained
from meshwright.registry.store import Ledger
from meshwright.registry.tool import INVOCATION, Invocation, LocalTool

log = structlog.get_logger("tool_host")
MAX_RESULT_BYTES = 1 * 2**20
MAX_ARGUMENT_BYTES = 256 * 2**10
OPEN_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Hosted:
    """A tool with its contract, compiled."""

    tool: LocalTool
    contract: Tool
    arguments: Schema
    result: Schema


class ToolHost:
    """Runs this process's tools behind the chain: grant, schema, ledger, timeout, result schema.

    Args:
        tools: What is served here.
        ledger: Outcomes by key; keeps effects from being doubled.
    """

    def __init__(self, tools: Sequence[LocalTool], ledger: Ledger) -> None:
        self._ledger = ledger
        self._hosted: dict[str, Hosted] = {}
        for tool in tools:
            contract = tool.contract()
            arguments = Schema(from_struct(contract.input_schema, "input_schema"))
            result = Schema(from_struct(contract.output_schema, "output_schema"))
            self._hosted[f"{tool.name}@{tool.version}"] = Hosted(tool, contract, arguments, result)

    @property
    def tools(self) -> list[LocalTool]:
        """What is served here."""
        return [hosted.tool for hosted in self._hosted.values()]

    def serves(self, pin: str) -> bool:
        """Whether `name@version` runs in this process."""
        return pin in self._hosted

    async def invoke(self, grant: Grant, pin: str, arguments_json: str, key: str) -> Outcome:
        """Calls a tool at most once a key.

        Args:
            grant: Under which the call is made; must name the tool.
            pin: `name@version`.
            arguments_json: Arguments as JSON text.
            key: Idempotency key; the same call after a crash has the same one.

        Returns:
            The outcome, a tool's own failure included: that is data for the caller.

        Raises:
            MeshError: The call was refused before the tool was reached, or its outcome cannot be known.
        """
        hosted = self._hosted.get(pin)
        if hosted is None:
            raise ToolNotFoundError(f"{pin} is not served here: ask the registry where it is")
        check_tool(grant, pin)
        arguments = checked_arguments(hosted, arguments_json)
        call = Invocation(grant.tenant, grant.principal, grant.task_id, key)
        if hosted.contract.effect == Effect.EFFECT_PURE:
            return await self._run(hosted, call, arguments)
        return await self._once(hosted, call, arguments, grant.fence)

    async def _once(self, hosted: Hosted, call: Invocation, arguments: dict[str, Any], fence: int) -> Outcome:
        holder = (call.tenant, call.principal, call.task_id)
        may_rerun = hosted.contract.effect == Effect.EFFECT_IDEMPOTENT
        patience = time.monotonic() + hosted.tool.timeout_s + 2
        while True:
            deadline_ms = int((time.time() + hosted.tool.timeout_s) * 1000)
            state, written = await self._ledger.begin(
                holder, call.key, deadline_ms=deadline_ms, may_rerun=may_rerun, fence=fence
            )
            match state:
                case "done":
                    outcome = Outcome.FromString(written)
                    outcome.replayed = True
                    return outcome
                case "unknown":
                    raise OutcomeUnknownError(f"{hosted.tool.name} was begun and its host was lost: it may have run")
                case "fenced":
                    raise FencedError("a newer owner of the task has called this host: this call comes too late")
                case "open" if time.monotonic() > patience:
                    raise InvocationOpenError(f"{hosted.tool.name} is being called with this key: ask again")
                case "open":
                    await asyncio.sleep(OPEN_POLL_S)
                case _:
                    outcome = await self._run(hosted, call, arguments)
                    return Outcome.FromString(await self._ledger.settle(holder, call.key, outcome.SerializeToString()))

    async def _run(self, hosted: Hosted, call: Invocation, arguments: dict[str, Any]) -> Outcome:
        token = INVOCATION.set(call)
        try:
            async with asyncio.timeout(hosted.tool.timeout_s):
                result = await hosted.tool.run(arguments)
            outcome = checked_result(hosted, result)
        except TimeoutError:
            outcome = failed(DeadlineExceededError(f"{hosted.tool.name} took longer than {hosted.tool.timeout_s:g} s"))
        except MeshError as error:
            outcome = failed(error)
        except Exception as error:  # noqa: BLE001 - a tool may raise anything; its failure is data
            log.warning("tool_failed", tool=hosted.tool.name, task_id=call.task_id, error=repr(error))
            outcome = failed(ToolFailedError(f"{hosted.tool.name}: {type(error).__name__}: {error}"[:500]))
        finally:
            INVOCATION.reset(token)
        telemetry.TOOL_CALLS.labels(hosted.tool.name, "error" if outcome.HasField("error") else "ok").inc()
        return outcome


def checked_arguments(hosted: Hosted, arguments_json: str) -> dict[str, Any]:
    """Reads arguments and holds them against the schema.

    Raises:
        InvalidRequestError: Lists every violation by JSON Pointer.
    """
    if len(arguments_json) > MAX_ARGUMENT_BYTES:
        raise InvalidRequestError(
            "arguments are too large", fields={"arguments": f"at most {MAX_ARGUMENT_BYTES} bytes"}
        )
    try:
        arguments = json.loads(arguments_json)
    except ValueError:
        raise InvalidRequestError("arguments are no JSON", fields={"arguments": "must be a JSON object"}) from None
    violations = hosted.arguments.violations(arguments)
    if violations:
        problems = {f"arguments{violation.pointer}": violation.message for violation in violations}
        raise InvalidRequestError(f"arguments of {hosted.tool.name}: {explained(violations)}", fields=problems)
    return dict(arguments)


def checked_result(hosted: Hosted, result: Any) -> Outcome:
    """Holds a result against its schema and size."""
    violations = hosted.result.violations(result)
    if violations:
        raise ToolResultInvalidError(f"{hosted.tool.name} broke its own contract: {explained(violations)}")
    text = json.dumps(result, ensure_ascii=False)
    if len(text) > MAX_RESULT_BYTES:
        raise ResultTooLargeError(f"{hosted.tool.name} returned more than {MAX_RESULT_BYTES} bytes: ask for less")
    return Outcome(result_json=text)


def failed(error: MeshError) -> Outcome:
    """Builds the outcome of a failure."""
    return Outcome(error=status_pb2.Status.FromString(error.to_status().SerializeToString()))
