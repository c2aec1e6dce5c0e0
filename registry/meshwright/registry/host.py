"""The tool host: the one chain of checks in front of every tool, and the one place where tools run."""

import asyncio
import copy
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from meshwright.core import telemetry
from meshwright.core.canonical import digest, from_struct
from meshwright.core.errors import (
    DeadlineExceededError,
    FencedError,
    InvalidRequestError,
    InvocationOpenError,
    MeshError,
    OutcomeUnknownError,
    ResultTooLargeError,
    SetupError,
    StoreUnavailableError,
    ToolFailedError,
    ToolNotFoundError,
    ToolResultInvalidError,
)
from meshwright.core.grant import check_tool
from meshwright.core.ids import CALLER_ID, checked
from meshwright.core.limit import Limit
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_IDEMPOTENT, EFFECT_PURE, Tool
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState, Outcome
from meshwright.registry.schema import Schema, explained
from meshwright.registry.store import Ledger
from meshwright.registry.tool import INVOCATION, Invocation, LocalTool

log = structlog.get_logger("tool_host")
MAX_RESULT_BYTES = 1 * 2**20
MAX_ARGUMENT_BYTES = 256 * 2**10
TEXT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
OPEN_POLL_S = 0.2
SETTLE_RETRY_S = 0.5
PATIENCE_S = 2.0
"""How much longer than it may take a call of another host is waited for."""
STATES = {
    "not_seen": InvocationState.INVOCATION_STATE_NOT_SEEN,
    "running": InvocationState.INVOCATION_STATE_RUNNING,
    "done": InvocationState.INVOCATION_STATE_DONE,
    "unknown": InvocationState.INVOCATION_STATE_UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Hosted:
    """A tool with its contract, compiled."""

    tool: LocalTool
    contract: Tool
    arguments: Schema
    result: Schema


@dataclass(frozen=True, slots=True)
class Call:
    """A call with effects, as the ledger knows it.

    Attributes:
        holder: Tenant, principal and task id.
        key: Idempotency key.
        intent: Digest of tool, version and arguments.
    """

    holder: tuple[str, str, str]
    key: str
    intent: str


class ToolHost:
    """Runs this process's tools behind the chain: grant, schema, ledger, timeout, result schema.

    A call with effects goes on when its caller has gone, bounded by its timeout, and its outcome is settled: whoever
    asks next with the same key finds it.

    Args:
        tools: What is served here.
        ledger: Outcomes by key; keeps effects from being doubled.

    Raises:
        SetupError: Two tools have the same name and version, or one cannot be a tool.
    """

    def __init__(self, tools: Sequence[LocalTool], ledger: Ledger) -> None:
        self._ledger = ledger
        self._hosted: dict[str, Hosted] = {}
        self._calls: set[asyncio.Task[Outcome]] = set()
        self._running: dict[Call, asyncio.Task[Outcome]] = {}
        for tool in tools:
            pin = f"{tool.name}@{tool.version}"
            if pin in self._hosted and self._hosted[pin].tool is not tool:
                raise SetupError(f"two tools are called {pin}: rename one of them")
            contract = tool.contract()
            arguments = Schema(from_struct(contract.input_schema, "input_schema"))
            result = Schema(from_struct(contract.output_schema, "output_schema"))
            self._hosted[pin] = Hosted(tool, contract, arguments, result)

    @property
    def tools(self) -> list[LocalTool]:
        """What is served here."""
        return [hosted.tool for hosted in self._hosted.values()]

    def serves(self, pin: str) -> bool:
        """Whether `name@version` runs in this process."""
        return pin in self._hosted

    async def invoke(self, grant: Grant, pin: str, arguments_json: str, key: str, intent_digest: str = "") -> Outcome:
        """Calls a tool at most once a key.

        Args:
            grant: Under which the call is made; must name the tool.
            pin: `name@version`.
            arguments_json: Arguments as JSON text.
            key: Idempotency key; the same call after a crash has the same one.
            intent_digest: Digest of tool, version and arguments as the caller journaled it; empty: not compared.

        Returns:
            The outcome, a tool's own failure included: that is data for the caller.

        Raises:
            MeshError: The call was refused before the tool was reached, or its outcome cannot be known.
        """
        hosted = self._hosted.get(pin)
        if hosted is None:
            raise ToolNotFoundError(f"{pin} is not served here: ask the registry where it is")
        check_tool(grant, pin)
        arguments, intent = checked_arguments(hosted, arguments_json)
        if intent_digest not in ("", intent):
            differs = {"intent_digest": "is not the digest of this tool, version and arguments"}
            raise InvalidRequestError("this is not the call that was journaled", fields=differs)
        return await self._called(hosted, grant, arguments, key, intent)

    async def call(self, grant: Grant, pin: str, arguments: dict[str, Any], key: str, intent: str) -> Outcome:
        """Calls a tool as `invoke` does, for a caller in this process that has checked and journaled the call.

        Args:
            grant: Under which the call is made; must name the tool.
            pin: `name@version`, one that is served here.
            arguments: As they were held against the tool's schema; the tool gets a copy.
            key: Idempotency key.
            intent: Digest of tool, version and arguments, as it was journaled.

        Raises:
            MeshError: As `invoke`.
        """
        check_tool(grant, pin)
        return await self._called(self._hosted[pin], grant, copy.deepcopy(arguments), key, intent)

    async def _called(self, hosted: Hosted, grant: Grant, arguments: dict[str, Any], key: str, intent: str) -> Outcome:
        invocation = Invocation(grant.tenant, grant.principal, grant.task_id, key)
        if hosted.contract.effect == EFFECT_PURE:
            return await self._run(hosted, invocation, arguments)
        checked("idempotency_key", key, CALLER_ID)
        holder = (grant.tenant, grant.principal, grant.task_id)
        work = asyncio.create_task(self._once(hosted, Call(holder, key, intent), arguments, grant.fence))
        self._calls.add(work)
        work.add_done_callback(self._calls.discard)
        return await asyncio.shield(work)

    async def outcome(self, grant: Grant, key: str) -> tuple[InvocationState.ValueType, Outcome | None]:
        """Tells what became of a key within the grant's task; the outcome is there where it is DONE.

        Pure tools leave no trace: their keys are not seen.

        Raises:
            MeshError: The key is none, or the store does not answer.
        """
        checked("idempotency_key", key, CALLER_ID)
        holder = (grant.tenant, grant.principal, grant.task_id)
        state, written = await self._ledger.look(holder, key)
        if state == "unknown" and any((call.holder, call.key) == (holder, key) for call in self._running):
            state = "running"  # past its time, but not lost: its outcome waits for the store
        return STATES[state], replayed(Outcome.FromString(written)) if state == "done" else None

    async def forgo(self, grant: Grant, key: str, intent: str, error: MeshError) -> Outcome:
        """Gives up a call of another host that cannot be reached: one that was not begun never will be.

        Args:
            grant: Under which it was made.
            key: Its idempotency key.
            intent: Digest of tool, version and arguments.
            error: Why; becomes its outcome.

        Raises:
            OutcomeUnknownError: It was begun: it may have run.
        """
        holder = (grant.tenant, grant.principal, grant.task_id)
        outcome = await self._ledger.forgo(holder, key, intent, failed(error).SerializeToString())
        if outcome is None:
            raise OutcomeUnknownError("the call was begun, and its host cannot be reached: it may have run")
        return Outcome.FromString(outcome)

    async def _once(self, hosted: Hosted, call: Call, arguments: dict[str, Any], fence: int) -> Outcome:
        token = secrets.token_hex(8)
        patience = time.monotonic() + hosted.tool.timeout_s + PATIENCE_S
        while True:
            was_running = call in self._running
            state, written = await self._ledger.begin(
                call.holder,
                call.key,
                intent=call.intent,
                timeout_s=hosted.tool.timeout_s,
                may_rerun=hosted.contract.effect == EFFECT_IDEMPOTENT,
                fence=fence,
                token=token,
            )
            running = self._running.get(call)
            match state:
                case "done":
                    return replayed(Outcome.FromString(written))
                case "fenced":
                    raise FencedError("a newer owner of the task has called this host: this call comes too late")
                case "differs":
                    other = {"idempotency_key": "belongs to a call of another tool or with other arguments"}
                    raise InvalidRequestError("the key is taken: make one for each call", fields=other)
                case _ if running:
                    return replayed(await asyncio.shield(running))
                case "run":
                    return await self._settled(hosted, call, arguments)
                case "unknown" if was_running:  # it has just settled: the ledger knows its outcome now
                    continue
                case "unknown":
                    raise OutcomeUnknownError(f"{hosted.tool.name} was begun and its host was lost: it may have run")
            if time.monotonic() > patience:
                raise InvocationOpenError(f"{hosted.tool.name} is being called with this key: ask again")
            await asyncio.sleep(OPEN_POLL_S)

    async def _settled(self, hosted: Hosted, call: Call, arguments: dict[str, Any]) -> Outcome:
        """Runs a call and writes its outcome, however long the store is away."""
        task = asyncio.current_task()
        assert task
        self._running[call] = task
        try:
            outcome = await self._run(hosted, Invocation(*call.holder, call.key), arguments)
            while True:
                try:
                    settled = await self._ledger.settle(call.holder, call.key, call.intent, outcome.SerializeToString())
                except StoreUnavailableError as error:
                    log.warning("outcome_waits", tool=hosted.tool.name, task_id=call.holder[2], error=error.message)
                    await asyncio.sleep(SETTLE_RETRY_S)
                else:
                    return Outcome.FromString(settled)
        finally:
            del self._running[call]

    async def _run(self, hosted: Hosted, invocation: Invocation, arguments: dict[str, Any]) -> Outcome:
        name, limit = hosted.tool.name, Limit(hosted.tool.timeout_s)
        token = INVOCATION.set(invocation)
        try:
            with limit:
                result = await hosted.tool.run(arguments)
            outcome = checked_result(hosted, result)
        except MeshError as error:
            outcome = failed(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            outcome = failed(ToolFailedError(f"{name} cancelled itself"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool may raise anything; its failure is data
            log.warning("tool_failed", tool=name, task_id=invocation.task_id, error=repr(error))
            late = DeadlineExceededError(f"{name} took longer than {hosted.tool.timeout_s:g} s")
            outcome = failed(late if limit.is_over else ToolFailedError(f"{name}: {type(error).__name__}: {error}"))
        finally:
            INVOCATION.reset(token)
        telemetry.TOOL_CALLS.labels(name, "error" if outcome.HasField("error") else "ok").inc()
        return outcome


def checked_arguments(hosted: Hosted, arguments_json: str) -> tuple[dict[str, Any], str]:
    """Reads arguments, holds them against the schema and returns them with the call's digest.

    Raises:
        InvalidRequestError: Lists every violation by JSON Pointer.
    """
    if len(arguments_json.encode()) > MAX_ARGUMENT_BYTES:
        limits = f"at most {MAX_ARGUMENT_BYTES} bytes"
        raise InvalidRequestError("arguments are too large", fields={"arguments": limits})
    try:
        arguments = json.loads(arguments_json)
        intent = digest([hosted.tool.name, hosted.tool.version, arguments])
    except (ValueError, RecursionError):  # no number of JSON, half a surrogate pair, no end of brackets
        raise InvalidRequestError("arguments are no JSON", fields={"arguments": "must be a JSON object"}) from None
    violations = hosted.arguments.violations(arguments)
    if violations:
        problems = {f"arguments{violation.pointer}": violation.message for violation in violations}
        raise InvalidRequestError(f"arguments of {hosted.tool.name}: {explained(violations)}", fields=problems)
    return dict(arguments), intent


def checked_result(hosted: Hosted, result: Any) -> Outcome:
    """Holds a result against its schema and size.

    Raises:
        ToolResultInvalidError: It breaks the schema, or is no JSON.
        ResultTooLargeError: It exceeds `MAX_RESULT_BYTES`.
    """
    broken = f"{hosted.tool.name} broke its own contract"
    try:
        text = TEXT.encode(result)
        size = len(text.encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolResultInvalidError(f"{broken}: its result is no JSON: {error}") from None
    if size > MAX_RESULT_BYTES:
        raise ResultTooLargeError(f"{hosted.tool.name} returned more than {MAX_RESULT_BYTES} bytes: ask for less")
    violations = hosted.result.violations(result)
    if violations:
        raise ToolResultInvalidError(f"{broken}: {explained(violations)}")
    return Outcome(result_json=text)


def failed(error: MeshError) -> Outcome:
    """Builds the outcome of a failure."""
    return Outcome(error=error.to_status())


def replayed(outcome: Outcome) -> Outcome:
    """Marks an outcome as one of an earlier call."""
    marked = Outcome()
    marked.CopyFrom(outcome)
    marked.replayed = True
    return marked
