"""Prompts as an OpenAI-compatible endpoint takes them."""

import json

from meshwright.agents.models.model import JsonObject, Message, Prompt
from meshwright.agents.models.names import WireNames
from meshwright.agents.models.strictness import is_strict
from meshwright.agents.models.untrusted import instructions_of, text_of


def request_of(prompt: Prompt, model: str, names: WireNames, bound: str) -> JsonObject:
    """Builds what a streamed chat completion is asked with.

    Args:
        prompt: What to ask.
        model: Who is asked.
        names: The spelling of the tools.
        bound: How the endpoint calls the limit of output tokens.
    """
    request: JsonObject = {
        "model": model,
        "messages": _messages(prompt, names),
        "stream_options": {"include_usage": True},
        bound: prompt.max_output_tokens,
    }
    if prompt.output_schema is not None:
        request["response_format"] = _format(prompt.output_schema)
    if prompt.tools:
        request["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": names.wire(tool.name),
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in prompt.tools
        ]
    return request


def _format(schema: JsonObject) -> JsonObject:
    """Asks for JSON; where the schema is one that can be enforced, it is."""
    strict = {"strict": True} if is_strict(schema) else {}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **strict}}


def _messages(prompt: Prompt, names: WireNames) -> list[JsonObject]:
    instructions = instructions_of(prompt)
    system = [{"role": "system", "content": instructions}] if instructions else []
    return system + [_message(message, names, prompt.boundary) for message in prompt.messages]


def _message(message: Message, names: WireNames, boundary: str) -> JsonObject:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": text_of(message, boundary)}
    if not message.calls:
        return {"role": message.role, "content": message.text}
    calls = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": names.wire(call.tool), "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in message.calls
    ]
    return {"role": "assistant", "content": message.text or None, "tool_calls": calls}
