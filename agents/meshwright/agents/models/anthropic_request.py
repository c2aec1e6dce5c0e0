"""Prompts as Anthropic's Messages API takes them."""

import json

import anthropic

from meshwright.agents.models.model import JsonObject, Message, Prompt, ToolSpec
from meshwright.agents.models.names import WireNames
from meshwright.agents.models.strictness import is_closed
from meshwright.agents.models.untrusted import note_of, text_of

CACHED: JsonObject = {"cache_control": {"type": "ephemeral"}}
"""Marks the end of what the provider keeps for the next call: the same tools and instructions begin every prompt."""


def request_of(prompt: Prompt, model: str, names: WireNames) -> JsonObject:
    """Builds what a streamed message is asked with.

    Args:
        prompt: What to ask.
        model: Who is asked.
        names: The spelling of the tools.
    """
    request: JsonObject = {
        "model": model,
        "max_tokens": prompt.max_output_tokens,
        "messages": _messages(prompt, names),
    }
    system = [_text(prompt.instructions) | CACHED] if prompt.instructions.strip() else []
    if note := note_of(prompt):  # its mark is another one in each task: it must not end what is kept
        system.append(_text(note))
    if prompt.output_schema is not None:
        if is_closed(prompt.output_schema):
            schema = anthropic.transform_schema(prompt.output_schema)
            request["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        else:
            system.append(_text(_in_words(prompt.output_schema)))
    if system:
        request["system"] = system
    return request | _tools(prompt, names)


def _in_words(schema: JsonObject) -> str:
    """Asks for JSON where the provider could only enforce less than the schema allows."""
    return f"Answer with one JSON object and nothing else. It satisfies this JSON Schema:\n{json.dumps(schema)}"


def _tools(prompt: Prompt, names: WireNames) -> JsonObject:
    """Offers the tools; where none is offered, earlier calls still have to be of tools that are known."""
    if prompt.tools:
        tools = [_tool(tool, names) for tool in prompt.tools]
        return {"tools": [*tools[:-1], tools[-1] | CACHED]}
    called = dict.fromkeys(call.tool for message in prompt.messages for call in message.calls)
    if not called:
        return {}
    tools = [_tool(ToolSpec(name, "Not available now.", {"type": "object"}), names) for name in called]
    return {"tools": tools, "tool_choice": {"type": "none"}}


def _tool(tool: ToolSpec, names: WireNames) -> JsonObject:
    return {"name": names.wire(tool.name), "description": tool.description, "input_schema": tool.parameters}


def _messages(prompt: Prompt, names: WireNames) -> list[JsonObject]:
    """Joins messages in a row of one side: all outcomes of an answer's calls belong into the one after it."""
    joined: list[JsonObject] = []
    for message in prompt.messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message, names, prompt.boundary)
        if joined and joined[-1]["role"] == role:
            joined[-1]["content"] += blocks
        elif blocks:
            joined.append({"role": role, "content": blocks})
    return joined


def _blocks(message: Message, names: WireNames, boundary: str) -> list[JsonObject]:
    """Spells a message; the provider takes no text that is blank."""
    text = [_text(text_of(message, boundary))] if message.text.strip() else []
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.call_id, "content": text}]
    calls = [
        {"type": "tool_use", "id": call.call_id, "name": names.wire(call.tool), "input": call.arguments}
        for call in message.calls
    ]
    return [*text, *calls]


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}
