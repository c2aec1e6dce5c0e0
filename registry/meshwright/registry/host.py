"""The tool host: the one chain of checks in front of every tool, and the one place where tools run."""

from collections.abc import Sequence
from typing import Any, NoReturn

from meshwright.core.canonical import digest
from meshwright.core.errors import (
    InvalidRequestError,
    MeshError,
    OutcomeUnknownError,
    SetupError,
    ToolNotFoundError,
)
from meshwright.core.ids import CALLER_ID, checked
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import APPROVAL_RULE_NEVER
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState, Outcome
from meshwright.registry.arguments import check_arguments, read_arguments
from meshwright.registry.audit import Audit
from meshwright.registry.authority import check_approval, check_authority
from meshwright.registry.call import Call
from meshwright.registry.execution import Execution
from meshwright.registry.hosted import Hosted, hosted
from meshwright.registry.keyed_calls import KeyedCalls
from meshwright.registry.outcome import failed, replayed
from meshwright.registry.progress import OnProgress
from meshwright.registry.quota import Quota
from meshwright.registry.rate import rates
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import Ledger, QuotaStore
from meshwright.registry.threads import Threads
from meshwright.registry.tool.hosted import HostedTool

STATES = {
    "not_seen": InvocationState.INVOCATION_STATE_NOT_SEEN,
    "running": InvocationState.INVOCATION_STATE_RUNNING,
    "done": InvocationState.INVOCATION_STATE_DONE,
    "unknown": InvocationState.INVOCATION_STATE_UNKNOWN,
}


class ToolHost:
    """Runs this process's tools behind one chain, the same for every tool and every caller.

    Grant, allow-list and scopes; schema; rate; approval; circuit; ledger; timeout and attempts; size, result schema and
    redaction; audit. What one of them does not let pass goes no further.

    Args:
        tools: What is served here.
        ledger: Outcomes by key, which keep effects from being doubled, and the audit.
        settings: Rates and bounds; by default no rates.

    Raises:
        SetupError: Two tools have the same name and version, or one cannot be a tool.
    """

    def __init__(self, tools: Sequence[HostedTool], ledger: Ledger, settings: HostSettings | None = None) -> None:
        chosen = settings or HostSettings()
        self._ledger = ledger
        self._audit = Audit(ledger)
        self._quota = Quota(QuotaStore(ledger.store), rates(chosen.tool_rates))
        self._keyed = KeyedCalls(ledger)
        self._hosted: dict[str, Hosted] = {}
        threads = Threads(chosen.tool_threads, chosen.tool_queue)
        for tool in tools:
            pin = f"{tool.name}@{tool.version}"
            if pin in self._hosted and self._hosted[pin].tool is not tool:
                raise SetupError(f"two tools are called {pin}: rename one of them")
            try:
                self._hosted[pin] = hosted(tool, threads)
            except InvalidRequestError as error:
                raise SetupError(f"{pin} cannot be served: {error.message}") from None

    @property
    def tools(self) -> list[HostedTool]:
        """What is served here."""
        return [one.tool for one in self._hosted.values()]

    def serves(self, pin: str) -> bool:
        """Whether `name@version` runs in this process."""
        return pin in self._hosted

    async def invoke(
        self,
        grant: Grant,
        pin: str,
        arguments_json: str,
        key: str,
        intent_digest: str = "",
        *,
        task_id: str = "",
        on_progress: OnProgress | None = None,
    ) -> Outcome:
        """Calls a tool at most once a key.

        Args:
            grant: Under which the call is made; must name the tool.
            pin: `name@version`.
            arguments_json: Arguments as JSON text.
            key: Idempotency key; the same call after a crash has the same one.
            intent_digest: Digest of tool, version and arguments as the caller journaled it; empty: not compared.
            task_id: Task for which the caller says that it calls; empty: not compared with the grant.
            on_progress: Told how far the tool has come, at most ten times a second.

        Returns:
            The outcome, a tool's own failure included: that is data for the caller.

        Raises:
            MeshError: The call was refused before the tool was reached, or its outcome cannot be known.
        """
        called = await self._allowed(grant, pin, key, intent_digest, task_id)
        arguments = read_arguments(arguments_json)
        check_arguments(called, arguments)
        intent = digest([called.tool.name, called.tool.version, arguments])
        if intent_digest not in ("", intent):
            raise not_journaled()
        return await self._passed(Call(called, grant, arguments, key, intent, on_progress))

    async def call(
        self,
        grant: Grant,
        pin: str,
        arguments: dict[str, Any],
        key: str,
        intent: str,
        *,
        on_progress: OnProgress | None = None,
    ) -> Outcome:
        """Calls a tool as `invoke` does, for a caller in this process that has journaled the call.

        Args:
            grant: Under which the call is made; must name the tool.
            pin: `name@version`, one that is served here.
            arguments: The tool gets a copy.
            key: Idempotency key.
            intent: Digest of tool, version and arguments, as it was journaled; computed anew where a person may have
                to allow the call.
            on_progress: Told how far the tool has come, at most ten times a second.

        Raises:
            MeshError: As `invoke`.
        """
        called = await self._allowed(grant, pin, key, intent)
        check_arguments(called, arguments)
        is_free = called.contract.approval == APPROVAL_RULE_NEVER
        if not is_free and intent != digest([called.tool.name, called.tool.version, arguments]):
            raise not_journaled()
        return await self._passed(Call(called, grant, arguments, key, intent, on_progress))

    async def _allowed(self, grant: Grant, pin: str, key: str, intent: str, task_id: str = "") -> Hosted:
        """Returns a tool that is here and that the grant lets the caller use."""
        called = self._hosted.get(pin)
        if called is None:
            raise ToolNotFoundError(f"{pin} is not served here: ask the registry where it is")
        try:
            check_authority(grant, called, task_id)
        except MeshError as error:
            await self._refuse(called, grant, key, intent, error)
        return called

    async def _passed(self, call: Call) -> Outcome:
        """What stands between a call that fits and its tool."""
        if not call.hosted.is_pure:
            checked("idempotency_key", call.key, CALLER_ID)
        await self._quota.take(call.grant.tenant, call.hosted.tool.name)
        try:
            check_approval(call)
        except MeshError as error:
            await self._refuse(call.hosted, call.grant, call.key, call.intent, error)
        return await (self._run(call) if call.hosted.is_pure else self._keyed.outcome(call))

    async def _run(self, call: Call) -> Outcome:
        """Runs a call that leaves no trace, unless its circuit is open."""
        breaker = call.hosted.breaker
        epoch = breaker.enter()
        if epoch is None:
            raise call.hosted.circuit_open()
        try:
            with call.hosted.places:
                outcome = await Execution(call, epoch).outcome()
        finally:
            breaker.leave(epoch)
        self._audit.called(call, outcome)
        return outcome

    async def _refuse(self, called: Hosted, grant: Grant, key: str, intent: str, error: MeshError) -> NoReturn:
        await self._audit.refused(called, grant, key, intent, error)
        raise error

    async def outcome(self, grant: Grant, key: str) -> tuple[InvocationState.ValueType, Outcome | None]:
        """Tells what became of a key within the grant's task; the outcome is there where it is DONE.

        Pure tools leave no trace: their keys are not seen.

        Raises:
            MeshError: The key is none, or the store does not answer.
        """
        checked("idempotency_key", key, CALLER_ID)
        holder = (grant.tenant, grant.principal, grant.task_id)
        state, written = await self._ledger.look(holder, key)
        if state == "unknown" and self._keyed.is_running(holder, key):
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


def not_journaled() -> InvalidRequestError:
    """Builds the refusal of a call that is another than the one that was journaled."""
    differs = {"intent_digest": "is not the digest of this tool, version and arguments"}
    return InvalidRequestError("this is not the call that was journaled", fields=differs)
