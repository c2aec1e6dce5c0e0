"""Calls with effects: each key runs once, whatever dies."""

import asyncio
import secrets
import time

import structlog

from meshwright.core.errors import (
    FencedError,
    InvalidRequestError,
    InvocationOpenError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from meshwright.core.recurring import Recurring
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry.audit import call_line
from meshwright.registry.call import Call
from meshwright.registry.execution import Execution
from meshwright.registry.outcome import replayed
from meshwright.registry.store import Holder, Ledger

log = structlog.get_logger("tool_host")
OPEN_POLL_S = 0.2
SETTLE_RETRY_S = 0.5
PATIENCE_S = 2.0
"""How much longer than it may take a call of another host is waited for."""

Entry = tuple[Holder, str, str]
"""A call as the ledger knows it: holder, key and intent."""


class KeyedCalls:
    """Runs calls through the ledger.

    A call goes on when its caller has gone, bounded by its timeout, and its outcome is settled: whoever asks next with
    the same key finds it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._calls: set[asyncio.Task[Outcome]] = set()
        self._running: dict[Entry, asyncio.Task[Outcome]] = {}

    async def outcome(self, call: Call) -> Outcome:
        """Returns what came of a call, now or earlier.

        Raises:
            MeshError: It was refused, or its outcome cannot be known.
        """
        work = asyncio.create_task(self._placed(call))
        self._calls.add(work)
        work.add_done_callback(self._calls.discard)
        return await asyncio.shield(work)

    def is_running(self, holder: Holder, key: str) -> bool:
        """Whether a call with a key is at work here, or its outcome waits for the store."""
        return any(entry[:2] == (holder, key) for entry in self._running)

    async def _placed(self, call: Call) -> Outcome:
        with call.hosted.places:
            return await self._once(call)

    async def _once(self, call: Call) -> Outcome:
        entry, name = (call.holder, call.key, call.intent), call.hosted.tool.name
        token = secrets.token_hex(8)
        patience = time.monotonic() + call.hosted.tool.timeout_s + PATIENCE_S
        while True:
            was_running = entry in self._running
            epoch = call.hosted.breaker.enter()
            try:
                state, written = await self._begin(call, token, may_begin=epoch is not None)
                running = self._running.get(entry)
                if state == "run" and epoch is not None and not running:
                    return await self._settled(call, epoch)
            finally:
                if epoch is not None:
                    call.hosted.breaker.leave(epoch)
            if known := answered(state, written):
                return known
            if running:
                return replayed(await asyncio.shield(running))
            if state == "shut":
                raise call.hosted.circuit_open()
            if state == "unknown" and not was_running:  # else it has just settled: the ledger knows its outcome now
                raise OutcomeUnknownError(f"{name} was begun and its host was lost: it may have run")
            if time.monotonic() > patience:
                raise InvocationOpenError(f"{name} is being called with this key: ask again")
            if state == "open":
                await asyncio.sleep(OPEN_POLL_S)

    async def _begin(self, call: Call, token: str, *, may_begin: bool) -> tuple[str, bytes]:
        return await self._ledger.begin(
            call.holder,
            call.key,
            intent=call.intent,
            timeout_s=call.hosted.tool.timeout_s,
            may_rerun=call.hosted.may_repeat,
            fence=call.grant.fence,
            token=token,
            may_begin=may_begin,
            line=call_line(call),
        )

    async def _settled(self, call: Call, epoch: int) -> Outcome:
        """Runs a call and writes its outcome, however long the store is away."""
        entry = (call.holder, call.key, call.intent)
        task = asyncio.current_task()
        assert task
        self._running[entry] = task
        try:
            outcome = await Execution(call, epoch).outcome()
            written, line = outcome.SerializeToString(), call_line(call, outcome)
            failing = Recurring()
            facts = {"tool": call.hosted.pin, "task_id": call.grant.task_id}
            while True:
                try:
                    settled = await self._ledger.settle(*entry, written, line=line)
                except StoreUnavailableError as error:
                    if failing.is_news():
                        log.warning("outcome_waits", error=error.message, **facts)
                    await asyncio.sleep(SETTLE_RETRY_S)
                else:
                    if failing.is_over():
                        log.info("outcome_written", **facts)
                    return Outcome.FromString(settled)
        finally:
            del self._running[entry]


def answered(state: str, written: bytes) -> Outcome | None:
    """Returns an outcome that the ledger knew; None: it knew none.

    Raises:
        FencedError: The caller has lost the task.
        InvalidRequestError: The key is another call's.
    """
    match state:
        case "done":
            return replayed(Outcome.FromString(written))
        case "fenced":
            raise FencedError("a newer owner of the task has called this host: this call comes too late")
        case "differs":
            other = {"idempotency_key": "belongs to a call of another tool or with other arguments"}
            raise InvalidRequestError("the key is taken: make one for each call", fields=other)
    return None
