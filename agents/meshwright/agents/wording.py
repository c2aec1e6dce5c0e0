"""How outcomes read: what tools, people and other agents brought, as the model is told. Pure."""

import json

from meshwright.core.canonical import from_value
from meshwright.core.errors import InputExpiredError, MeshError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK, InputResolved, ToolResult
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    TASK_STATUS_COMPLETED,
    FinishReason,
    TaskResponse,
)

TEXT = json.JSONEncoder(ensure_ascii=False)


def answer_text(resolved: InputResolved) -> str:
    """Writes a person's answer as the model reads it; their silence as a failure."""
    if resolved.decision != DECISION_ANSWER:
        return failure_text(InputExpiredError(resolved.reason or "nobody answered"))
    answer = from_value(resolved.answer, "answer")
    return answer if isinstance(answer, str) else TEXT.encode(answer)


def tool_text(result: ToolResult) -> str:
    """Writes a tool's outcome as the model reads it."""
    if result.outcome == TOOL_OUTCOME_OK:
        return TEXT.encode(from_value(result.result, "result"))
    return failure_text(MeshError.from_status(result.error))


def child_text(result: TaskResponse) -> str:
    """Writes a child's result as the model reads it; a part of an answer is called one."""
    if result.status == TASK_STATUS_COMPLETED:
        if result.finish_reason in (FINISH_REASON_UNSPECIFIED, FINISH_REASON_STOP):
            return result.output
        reason = FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_")
        if result.unanswered:
            return f"(No answer: the agent had to stop early, {reason}.)"
        return f"(A partial answer: the agent had to stop early, {reason}.)\n\n{result.output}"
    error = MeshError.from_status(result.error)
    error.message = error.message or "the task was cancelled"
    return failure_text(error, result.output)


def failure_text(error: MeshError, partial: str = "") -> str:
    """Writes a failure so that a model can act on it; `partial`: what there is of a result nevertheless."""
    told = {"reason": error.reason, "message": error.message} | ({"partial_output": partial} if partial else {})
    return TEXT.encode({"error": told})
