"""What an endpoint is told of a task: a JSON document like a CloudEvent, the same one at every attempt."""

import json
from datetime import UTC, datetime
from typing import Any

from meshwright.agents.deliveries import Delivery
from meshwright.agents.reader import Reader
from meshwright.agents.task import Record, TaskName
from meshwright.core.canonical import from_struct
from meshwright.core.errors import MeshError, TaskNotFoundError
from meshwright.gen.agents.v1.task_pb2 import (
    Decision,
    EscalationSignal,
    FinishReason,
    InputKind,
    InputPriority,
    PendingInput,
    TaskResponse,
    TaskStatus,
)

MOST_TEXT = 100_000
"""Characters of one text."""
BEFORE = 128
"""Events of a journal, before the one that a question came with, among which it is looked for."""


async def body_of(reader: Reader, delivery: Delivery, *, has_texts: bool) -> bytes:
    """Writes what is told.

    Args:
        reader: Where tasks live.
        delivery: What has happened.
        has_texts: Whether prompts, questions, arguments and outputs are told too.

    Raises:
        TaskNotFoundError: The task has expired.
    """
    record = await reader.record(delivery.name)
    data = about(record)
    if delivery.kind == "task_ended":
        data |= ended(await reader.response(delivery.name), has_texts=has_texts)
    else:
        data |= asking(await pending_of(reader, delivery), delivery.origin, has_texts=has_texts)
    if has_texts:
        data["prompt"] = record.request.prompt[:MOST_TEXT]
    event = {
        "specversion": "1.0",
        "id": delivery.event_id,
        "source": f"/agents/{record.agent_id}",
        "type": f"meshwright.{delivery.kind}",
        "subject": delivery.name.task_id,
        "time": datetime.fromtimestamp(delivery.time_ms / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


async def pending_of(reader: Reader, delivery: Delivery) -> PendingInput:
    """Finds a question in the journal of the task that asked it: decided ones stand there too."""
    after = max(0, delivery.sequence - BEFORE)
    for entry in reversed(await reader.read(delivery.origin, after, BEFORE)):
        event = entry.event(delivery.origin.task_id)
        if event.input_requested.input_id == delivery.input_id:
            return event.input_requested
    raise TaskNotFoundError(f"task {delivery.origin.task_id} holds no question {delivery.input_id}")


def about(record: Record) -> dict[str, Any]:
    """Says which task it is, and whose."""
    return {
        "task_id": record.name.task_id,
        "agent_id": record.agent_id,
        "tenant": record.name.tenant,
        "principal": record.name.principal,
        "session_id": record.request.session_id,
        "metadata": dict(record.request.metadata),
    }


def asking(pending: PendingInput, origin: TaskName, *, has_texts: bool) -> dict[str, Any]:
    """Says what is asked, and what may be decided."""
    asked: dict[str, Any] = {
        "input_id": pending.input_id,
        "kind": InputKind.Name(pending.kind).removeprefix("INPUT_KIND_"),
        "priority": InputPriority.Name(pending.priority).removeprefix("INPUT_PRIORITY_"),
        "signal": EscalationSignal.Name(pending.signal).removeprefix("ESCALATION_SIGNAL_") if pending.signal else "",
        "choices": [Decision.Name(choice).removeprefix("DECISION_") for choice in pending.choices],
        "tool": pending.tool,
        "tool_version": pending.tool_version,
        "intent_digest": pending.intent_digest,
        "expire_time": pending.expire_time.ToJsonString(),
        "origin_task_id": origin.task_id,
    }
    if has_texts:
        asked["prompt"] = pending.prompt[:MOST_TEXT]
        asked["summary"] = pending.summary
        asked["arguments"] = from_struct(pending.arguments, "arguments")
    return {"input": asked}


def ended(response: TaskResponse, *, has_texts: bool) -> dict[str, Any]:
    """Says how a task ended, and what it took."""
    said: dict[str, Any] = {
        "status": TaskStatus.Name(response.status).removeprefix("TASK_STATUS_"),
        "finish_reason": FinishReason.Name(response.finish_reason).removeprefix("FINISH_REASON_"),
        "error_reason": MeshError.from_status(response.error).reason if response.HasField("error") else "",
        "steps_used": response.steps_used,
        "tokens_used": response.tokens_used,
        "tool_calls": response.tool_calls,
        "duration_ms": response.duration_ms,
    }
    if has_texts:
        said["output"] = response.output[:MOST_TEXT]
        said["error"] = response.error.message
    return said
