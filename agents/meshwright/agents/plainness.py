"""Plainness: whether an answer is what models and tools made of the question, and nobody else had a say. Pure."""

from meshwright.gen.agents.v1.step_event_pb2 import GUARDRAIL_ACTION_ALLOW, TOOL_OUTCOME_OK, StepEvent

STOPS = frozenset({"stop", "tool_calls"})


def is_plain(event: StepEvent) -> bool:
    """Whether an event leaves its task's answer one that may be given again.

    It does not where a guardrail changed, held or marked something, a person was asked, work was handed on, a tool call
    failed, something was left out of the prompts, a model was cut short, or the answer was one from before itself.
    """
    match event.WhichOneof("event"):
        case "guardrail":
            return event.guardrail.action == GUARDRAIL_ACTION_ALLOW
        case "tool_result":
            return event.tool_result.outcome == TOOL_OUTCOME_OK
        case "llm_call":
            return not event.llm_call.cached and event.llm_call.stop_reason in STOPS
        case "delegation" | "child" | "input_requested" | "context_compacted":
            return False
        case _:
            return True
