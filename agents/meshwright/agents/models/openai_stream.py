"""Streamed chunks of a chat completion put together to one answer."""

import json
from dataclasses import dataclass, field
from typing import Any

from meshwright.agents.models.estimate import estimated_usage
from meshwright.agents.models.model import Answer, Call, JsonObject, Prompt, Usage
from meshwright.agents.models.openai_request import WireNames
from meshwright.core.errors import ModelUnavailableError

NOT_JSON = "arguments_were_not_a_json_object"
"""The only argument of a call whose arguments could not be read; its value is what the model wrote.

Tools take no such argument, so the schema check refuses the call and the model reads what it did wrong; with no
arguments at all, a tool that requires none would run.
"""
LONGEST_QUOTE = 1_000
"""Characters of unreadable arguments that are kept."""


@dataclass(slots=True)
class _Part:
    """A tool call as far as it has arrived."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Completion:
    """Collects the chunks of one stream; servers may leave out any field of them.

    Args:
        prompt: What was asked.
        names: The spelling of the tools.
        place: Where the chunks come from, for errors.
    """

    def __init__(self, prompt: Prompt, names: WireNames, place: str) -> None:
        self._prompt = prompt
        self._names = names
        self._place = place
        self._text: list[str] = []
        self._parts: list[_Part] = []
        self._stop_reason = ""
        self._usage: Any = None
        self._has_choice = False

    def add(self, chunk: Any) -> str:
        """Takes the next chunk and returns the text in it."""
        self._usage = getattr(chunk, "usage", None) or self._usage
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list) or not choices:
            return ""
        self._has_choice = True
        self._stop_reason = getattr(choices[0], "finish_reason", None) or self._stop_reason
        delta = getattr(choices[0], "delta", None)
        for piece in getattr(delta, "tool_calls", None) or []:
            self._add_call(piece)
        text = str(getattr(delta, "content", None) or getattr(delta, "refusal", None) or "")
        self._text.append(text)
        return text

    def answer(self, provider: str, model: str) -> Answer:
        """Returns what has arrived, once the stream is over.

        Raises:
            ModelUnavailableError: The stream held no answer, or broke off before its end.
        """
        if not self._has_choice:
            raise ModelUnavailableError(f"{self._place} sent no answer: check that the base URL is right")
        if not self._stop_reason:
            raise ModelUnavailableError(f"{self._place} broke off in the middle of an answer")
        text = "".join(self._text)
        calls = tuple(self._call(place, part) for place, part in enumerate(self._parts))
        usage = _counted(self._usage) or estimated_usage(self._prompt, text, calls)
        return Answer(text, calls, usage, provider, model, self._stop_reason)

    def _add_call(self, piece: Any) -> None:
        """Adds a piece to its call; a server that numbers all calls alike is told by their ids."""
        index = getattr(piece, "index", None) or 0
        call_id = getattr(piece, "id", None) or ""
        part = next((part for part in reversed(self._parts) if part.index == index), None)
        if part is None or (call_id and part.call_id and call_id != part.call_id):
            part = _Part(index)
            self._parts.append(part)
        function = getattr(piece, "function", None)
        part.call_id = part.call_id or call_id
        part.name = part.name or getattr(function, "name", None) or ""
        part.arguments.append(getattr(function, "arguments", None) or "")

    def _call(self, place: int, part: _Part) -> Call:
        is_taken = any(part.call_id == other.call_id for other in self._parts[:place])
        call_id = f"call_{self._prompt.turn}_{place}" if is_taken or not part.call_id else part.call_id
        return Call(call_id, self._names.own(part.name), _arguments("".join(part.arguments)))


def _arguments(text: str) -> JsonObject:
    """Reads arguments; nothing at all means that there are none."""
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {NOT_JSON: text[:LONGEST_QUOTE]}


def _counted(usage: Any) -> Usage | None:
    """Reads the server's own count, cached tokens apart; None when it sent none."""
    given, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if not (isinstance(given, int) and isinstance(written, int)):
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    cached = min(given, getattr(details, "cached_tokens", None) or 0)
    return Usage(input_tokens=given - cached, output_tokens=written, cache_read_tokens=cached)
