"""Spans of an agent: a task's, and one for each model and each tool that it asks.

By OpenTelemetry's conventions for generative AI where the process has opted in, see `tracing`. Nothing that was said is
in them: neither prompts, answers, arguments nor results.
"""

from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from meshwright.agents.models.model import Answer, Model, Prompt
from meshwright.agents.task import Record
from meshwright.core import tracing
from meshwright.core.errors import MeshError
from meshwright.core.tracing import Attempt
from meshwright.gen.agents.v1.step_event_pb2 import ToolCall
from meshwright.gen.agents.v1.task_pb2 import FinishReason, TaskResponse, TaskStatus
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome

Attributes = dict[str, AttributeValue]


def task(record: Record) -> AbstractContextManager[Span]:
    """Opens the span of one worker's part in a task."""
    return tracing.span(name_of_task(record), record.trace, kind=SpanKind.CONSUMER, attributes=of_task(record))


def name_of_task(record: Record) -> str:
    """Returns what the span of a task is called."""
    return f"invoke_agent {record.agent_id}" if tracing.has_gen_ai() else "task"


def of_task(record: Record) -> Attributes:
    """Returns what a task's span says from its beginning."""
    found: Attributes = {
        "meshwright.task_id": record.name.task_id,
        "meshwright.tenant": record.name.tenant,
        "meshwright.agent": record.agent_id,
        "meshwright.attempt": record.attempt,
    }
    if tracing.has_gen_ai():
        found |= {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": record.agent_id}
        if record.request.session_id:
            found["gen_ai.conversation.id"] = record.request.session_id
    return found


def follow(record: Record, before: Attempt | None) -> None:
    """Links the current span to that of the attempt before, which gave the task up in order."""
    if before and before.span_id:
        tracing.link_to_attempt(record.trace, before, "resumes")


def follow_lost(record: Record, before: Attempt | None) -> None:
    """Links the current span to that of an attempt whose worker was lost, and sends that one in its place."""
    if before and before.span_id:
        tracing.link_to_attempt(record.trace, before, "takes_over")
        lost = of_task(record) | {"meshwright.attempt": before.number}
        tracing.send_lost(name_of_task(record), record.trace, before, lost)


def ended(result: TaskResponse) -> None:
    """Says in the current span how its task has ended, and what it has cost with its children."""
    current = trace.get_current_span()
    if not current.is_recording():
        return
    usage = result.usage
    current.set_attributes(
        {
            "meshwright.status": TaskStatus.Name(result.status).removeprefix("TASK_STATUS_"),
            "meshwright.finish_reason": FinishReason.Name(result.finish_reason).removeprefix("FINISH_REASON_"),
            "meshwright.steps": result.steps_used,
            "meshwright.tokens": result.tokens_used,
            "meshwright.cost_micros": usage.cost_micros,
        }
    )
    if result.HasField("error"):
        current.set_status(StatusCode.ERROR)
        current.set_attribute("error.type", MeshError.from_status(result.error).reason)


def model(name: str, asked: Model, prompt: Prompt) -> AbstractContextManager[Span]:
    """Opens the span of one try of one model; `name` is what rules and metrics call it."""
    found: Attributes = {"meshwright.model": name, "meshwright.agent": prompt.agent, "meshwright.step": prompt.turn + 1}
    if not tracing.has_gen_ai():
        return tracing.span("model", kind=SpanKind.CLIENT, attributes=found)
    found |= {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": asked.provider,
        "gen_ai.request.model": asked.name,
        "gen_ai.request.max_tokens": prompt.max_output_tokens,
    }
    return tracing.span(f"chat {asked.name}", kind=SpanKind.CLIENT, attributes=found)


def answered(current: Span, answer: Answer) -> None:
    """Says in a model's span what its answer took."""
    if not current.is_recording():
        return
    usage = answer.usage
    if not tracing.has_gen_ai():
        current.set_attributes(
            {"meshwright.input_tokens": usage.input_tokens, "meshwright.output_tokens": usage.output_tokens}
        )
        return
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    current.set_attributes(
        {
            "gen_ai.response.model": answer.model,
            "gen_ai.response.finish_reasons": (answer.stop_reason,),
            "gen_ai.usage.input_tokens": usage.input_tokens + cached,  # there with those of the cache, here without
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        }
    )


def tool(step: int, intent: ToolCall) -> AbstractContextManager[Span]:
    """Opens the span of a tool call, as its caller sees it."""
    found: Attributes = {"meshwright.tool": f"{intent.tool}@{intent.version}", "meshwright.step": step}
    if not tracing.has_gen_ai():
        return tracing.span("tool", attributes=found)
    found |= {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": intent.tool,
        "gen_ai.tool.call.id": intent.call_id,
        "gen_ai.tool.type": "function",
    }
    return tracing.span(f"execute_tool {intent.tool}", attributes=found)


def returned(current: Span, outcome: Outcome) -> None:
    """Says in a tool call's span whether the tool failed."""
    if outcome.HasField("error") and current.is_recording():
        current.set_status(StatusCode.ERROR)
        current.set_attribute("error.type", MeshError.from_status(outcome.error).reason)
