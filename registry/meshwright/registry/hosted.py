"""A tool as its host holds it: contract, compiled schemas, circuit."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import structlog

from meshwright.core import telemetry
from meshwright.core.breaker import Breaker, Circuit
from meshwright.core.canonical import from_struct
from meshwright.core.errors import ToolCircuitOpenError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_IDEMPOTENT, EFFECT_PURE, Effect, Tool
from meshwright.registry.redaction import Redaction
from meshwright.registry.schema import Schema
from meshwright.registry.threads import Threads
from meshwright.registry.tool.hosted import HostedTool

log = structlog.get_logger("tool_host")
TRIAL_GRACE_S = 5.0
"""What a trial may take beside the tool's own time: the ledger is asked before."""
UNBOUNDED: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True, slots=True)
class Hosted:
    """A tool with its contract, compiled.

    Attributes:
        tool: What runs.
        contract: What its callers rely on.
        pin: `name@version`.
        effect: As the audit names it.
        is_pure: Its calls leave no trace.
        may_repeat: A failed call may be tried again.
        arguments: Schema of its arguments.
        result: Schema of its result.
        redaction: What of a result nobody sees.
        breaker: Whether its backend works.
        threads: Where it runs; None: in the loop.
    """

    tool: HostedTool
    contract: Tool
    pin: str
    effect: str
    is_pure: bool
    may_repeat: bool
    arguments: Schema
    result: Schema
    redaction: Redaction
    breaker: Breaker
    threads: Threads | None

    @property
    def places(self) -> AbstractContextManager[None]:
        """What a call holds while it runs or waits for its turn."""
        return self.threads or UNBOUNDED

    def circuit_open(self) -> ToolCircuitOpenError:
        """Builds the refusal of a call while the backend is left alone."""
        often = f"has failed too often lately ({self.breaker.cause})"
        told = f"{self.tool.name} {often}: try again later, or do without it"
        return ToolCircuitOpenError(told, metadata={"tool": self.pin}, retry_after_s=self.breaker.retry_after_s)


def hosted(tool: HostedTool, threads: Threads) -> Hosted:
    """Compiles a tool.

    Raises:
        SetupError: It cannot be a tool.
        InvalidRequestError: A schema or a pointer of its contract cannot be used.
    """
    contract = tool.contract()
    pin = f"{tool.name}@{tool.version}"
    return Hosted(
        tool=tool,
        contract=contract,
        pin=pin,
        effect=Effect.Name(contract.effect).removeprefix("EFFECT_").lower(),
        is_pure=contract.effect == EFFECT_PURE,
        may_repeat=contract.effect in (EFFECT_PURE, EFFECT_IDEMPOTENT),
        arguments=Schema(from_struct(contract.input_schema, "input_schema")),
        result=Schema(from_struct(contract.output_schema, "output_schema")),
        redaction=Redaction(contract.redact),
        breaker=Breaker(time.monotonic, tool.timeout_s + TRIAL_GRACE_S, told_of(pin)),
        threads=threads if tool.is_threaded else None,
    )


def told_of(pin: str) -> Callable[[Circuit, str], None]:
    """Returns what tells of a tool's circuit: a metric and a line in the log."""
    telemetry.TOOL_CIRCUIT.labels(pin).set(Circuit.CLOSED)

    def tell(state: Circuit, cause: str) -> None:
        telemetry.TOOL_CIRCUIT.labels(pin).set(state)
        log.warning("tool_circuit", tool=pin, state=state.name.lower(), cause=cause)

    return tell
