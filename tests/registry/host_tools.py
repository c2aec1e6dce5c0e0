"""Tools of hosts under test, and what they did."""

import asyncio
import json
import time
from typing import Annotated, Any

from pydantic import Field

from meshwright.core.errors import (
    MeshError,
    PermissionDeniedError,
)
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome
from meshwright.registry import current_invocation, tool
from meshwright.registry.outcome import MAX_RESULT_BYTES

RUNS: list[Any] = []
"""What the tools of a test did; empty when it begins."""


@tool(effect="pure")
def look(n: Annotated[int, Field(ge=0)] = 0) -> int:
    """Reads."""
    RUNS.append(n)
    return n


@tool(effect="idempotent", timeout_s=5)
async def put(n: int = 0, wait_s: float = 0) -> str:
    """Writes, the same each time."""
    RUNS.append(n)
    await asyncio.sleep(wait_s)
    return f"put {n}"


@tool(effect="non_idempotent", timeout_s=5)
async def pay(n: int = 0, wait_s: float = 0) -> str:
    """Pays."""
    RUNS.append(n)
    await asyncio.sleep(wait_s)
    return f"paid {n}"


@tool(effect="pure", timeout_s=0.05)
async def stall() -> str:
    """Never comes back."""
    await asyncio.sleep(30)
    return "back"


@tool(effect="pure", timeout_s=0.05)
def stall_in_thread() -> str:
    """Comes back late."""
    time.sleep(0.3)
    return "back"


@tool(effect="pure")
def fail(kind: str) -> str:
    """Fails."""
    password = "hunter2"
    errors = {
        "value": ValueError("wrong number"),
        "half a pair": ValueError("\ud800"),
        "long": ValueError("x" * 100_000),
        "exit": SystemExit(password and 3),
        "cancelled": asyncio.CancelledError(),
        "timeout": TimeoutError("its own"),
        "mesh": PermissionDeniedError("not for you", fields={"a": "b"}),
    }
    raise errors[kind]


@tool(effect="pure")
async def give(what: str) -> Any:
    """Gives odd results."""
    nested: Any = []
    for _ in range(40):
        nested = [nested]
    return {
        "half a pair": "\ud800",
        "deep": nested,
        "object": object(),
        "large": "x" * (MAX_RESULT_BYTES + 1),
        "large in bytes": "ü" * (MAX_RESULT_BYTES // 2 + 1),
        "big integer": 2**70,
    }[what]


@tool(effect="pure")
def lie(number: str = "text") -> float:
    """Promises a number."""
    return float(number) if number != "text" else number  # type: ignore[return-value]


@tool(effect="non_idempotent", name="ask.who")
def who() -> list[str]:
    """Tells whose call it is."""
    call = current_invocation()
    return [call.tenant, call.principal, call.task_id, call.key]


TOOLS = [look, put, pay, stall, stall_in_thread, fail, give, lie, who]
PINS = [f"{one.name}@{one.version}" for one in TOOLS]


def grant(**changes: Any) -> Grant:
    fields = {"tenant": "t", "principal": "p", "agent_id": "a", "task_id": "task", "fence": 1, "tools": PINS}
    return Grant(**(fields | changes))


def value(outcome: Outcome) -> Any:
    assert not outcome.HasField("error"), outcome.error
    return json.loads(outcome.result_json)


def failure(outcome: Outcome) -> MeshError:
    assert outcome.HasField("error")
    assert outcome.result_json == ""
    return MeshError.from_status(outcome.error)
