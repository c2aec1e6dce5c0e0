"""Streamed events of a message put together to one answer."""

import json
from typing import Any

from meshwright.agents.models.estimate import counted
from meshwright.agents.models.failure import Origin
from meshwright.agents.models.incoming import Incoming
from meshwright.agents.models.model import Prompt, Usage
from meshwright.agents.models.names import WireNames

STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class IncomingMessage(Incoming):
    """Collects the events of one stream; servers may leave out any field of them.

    Args:
        prompt: What was asked.
        names: The spelling of the tools.
        origin: Where the events come from, for errors.
    """

    def __init__(self, prompt: Prompt, names: WireNames, origin: Origin) -> None:
        super().__init__(prompt, names, origin)
        self._counts: dict[str, int] = {}

    def add(self, event: Any) -> str:
        """Takes the next event and returns the text in it."""
        match getattr(event, "type", None):
            case "message_start":
                self._has_begun = True
                self._count(getattr(getattr(event, "message", None), "usage", None))
            case "content_block_start":
                return self._begin(getattr(event, "index", None), getattr(event, "content_block", None))
            case "content_block_delta":
                return self._go_on(getattr(event, "index", None), getattr(event, "delta", None))
            case "message_delta":
                stop_reason = str(getattr(getattr(event, "delta", None), "stop_reason", None) or "")
                self._stop_reason = STOP_REASONS.get(stop_reason, stop_reason) or self._stop_reason
                self._count(getattr(event, "usage", None))
        return ""

    def _begin(self, index: Any, block: Any) -> str:
        """Begins a block: words, or a call."""
        if getattr(block, "type", None) != "tool_use":
            return self._said(getattr(block, "text", None))
        call_id, name = getattr(block, "id", None), getattr(block, "name", None)
        draft = self._drafts.begin(index, str(call_id or ""), str(name or ""))
        if whole := getattr(block, "input", None):
            draft.arguments.append(json.dumps(whole))
        return ""

    def _go_on(self, index: Any, delta: Any) -> str:
        """Adds to a block."""
        draft = self._drafts.at(index)
        if draft and (piece := getattr(delta, "partial_json", None)):
            draft.arguments.append(str(piece))
        return self._said(getattr(delta, "text", None))

    def _said(self, text: Any) -> str:
        self._text.append(str(text or ""))
        return self._text[-1]

    def _count(self, usage: Any) -> None:
        """Takes counts; each later one is of the whole answer so far."""
        for name in _COUNTS:
            if (count := counted(getattr(usage, name, None))) is not None:
                self._counts[name] = count

    def _counted(self) -> Usage | None:
        if not {"input_tokens", "output_tokens"} <= self._counts.keys():
            return None
        given, written, read, kept = (self._counts.get(name, 0) for name in _COUNTS)
        return Usage(given, written, cache_read_tokens=read, cache_write_tokens=kept)
