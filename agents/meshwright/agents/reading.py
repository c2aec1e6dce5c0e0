"""`result.read`: a task reads on in what its prompt shows by beginning and end alone, never in another task's. Pure."""

import re

from meshwright.agents.context import MOST_READ, READ_RESULT, WHOLE_PROMPT, Conversation
from meshwright.agents.models.model import Call, ToolSpec
from meshwright.core.canonical import to_value
from meshwright.core.errors import InvalidRequestError
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK, ToolResult
from meshwright.registry.schema import Schema, explained

READING = ToolSpec(
    READ_RESULT,
    "Reads on in a text of this task that is shown by its beginning and its end alone; the handle stands in the gap.",
    {
        "type": "object",
        "properties": {
            "handle": {"type": "string", "maxLength": 16},
            "offset": {"type": "integer", "minimum": 0, "description": "First character"},
            "length": {"type": "integer", "minimum": 1, "maximum": MOST_READ, "description": "Characters"},
        },
        "required": ["handle"],
        "additionalProperties": False,
    },
)
DEFAULT_LENGTH = 4_000
ARGUMENTS = Schema(READING.parameters)
STEP = re.compile(r"m([0-9]{1,6})")


def read_on(conversation: Conversation, call: Call) -> ToolResult:
    """Carries out a call.

    Args:
        conversation: The task's.
        call: Of `READING`.

    Returns:
        The text, where it begins, how long the whole is, and where to read on (absent: it ends here).

    Raises:
        InvalidRequestError: The arguments do not fit, or nothing has that handle.
    """
    violations = ARGUMENTS.violations(call.arguments)
    if violations:
        problems = {f"arguments{one.pointer}": one.message for one in violations}
        raise InvalidRequestError(f"arguments of {READ_RESULT}: {explained(violations)}", fields=problems)
    text = _text(conversation, call.arguments["handle"])
    offset = int(call.arguments.get("offset", 0))
    end = offset + int(call.arguments.get("length", DEFAULT_LENGTH))
    found = {"text": text[offset:end], "offset": offset, "total": len(text)}
    if end < len(text):
        found["next_offset"] = end
    return ToolResult(call_id=call.call_id, outcome=TOOL_OUTCOME_OK, result=to_value(found))


def _text(conversation: Conversation, handle: str) -> str:
    if handle == WHOLE_PROMPT:
        return conversation.prompt
    place = STEP.fullmatch(handle)
    messages = conversation.messages
    if place is None or int(place[1]) >= len(messages) or messages[int(place[1])].role != "tool":
        known = f'"{WHOLE_PROMPT}", or as it stands in a gap of this task, such as "m3"'
        raise InvalidRequestError(f"nothing has the handle {handle!r}", fields={"arguments/handle": f"must be {known}"})
    return messages[int(place[1])].text
