"""Prompts as an OpenAI-compatible endpoint takes them."""

import json
import re
from collections.abc import Iterable

from meshwright.agents.models.model import JsonObject, Message, Prompt
from meshwright.agents.models.untrusted import instructions_of, text_of

LONGEST_NAME = 64
"""Characters of a tool's name."""

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


class WireNames:
    """Tool names with the letters that the endpoint allows, and the way back.

    Args:
        names: Our names; the same ones in the same order are always spelled alike.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._wire: dict[str, str] = {}
        self._own: dict[str, str] = {}
        for name in dict.fromkeys(names):
            wire = _FORBIDDEN.sub("__", name)[:LONGEST_NAME]
            number = 2
            while wire in self._own:
                ending = f"_{number}"
                wire = _FORBIDDEN.sub("__", name)[: LONGEST_NAME - len(ending)] + ending
                number += 1
            self._wire[name] = wire
            self._own[wire] = name

    def wire(self, name: str) -> str:
        """Spells one of our names for the endpoint."""
        return self._wire[name]

    def own(self, wire: str) -> str:
        """Returns our name; one that was never offered comes back as the model must have meant it."""
        return self._own.get(wire) or wire.replace("__", ".")


def names_of(prompt: Prompt) -> WireNames:
    """Spells all tools that a prompt offers or mentions."""
    offered = [tool.name for tool in prompt.tools]
    return WireNames(offered + [call.tool for message in prompt.messages for call in message.calls])


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
