"""Streamed chunks of a chat completion put together to one answer."""

from typing import Any

from meshwright.agents.models.estimate import counted
from meshwright.agents.models.failure import Origin
from meshwright.agents.models.incoming import Incoming
from meshwright.agents.models.model import Prompt, Usage
from meshwright.agents.models.names import WireNames


class Completion(Incoming):
    """Collects the chunks of one stream; servers may leave out any field of them.

    Args:
        prompt: What was asked.
        names: The spelling of the tools.
        origin: Where the chunks come from, for errors.
    """

    def __init__(self, prompt: Prompt, names: WireNames, origin: Origin) -> None:
        super().__init__(prompt, names, origin)
        self._usage: Any = None

    def add(self, chunk: Any) -> str:
        """Takes the next chunk and returns the text in it."""
        self._usage = getattr(chunk, "usage", None) or self._usage
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list) or not choices:
            return ""
        self._has_begun = True
        self._stop_reason = str(getattr(choices[0], "finish_reason", None) or self._stop_reason)
        delta = getattr(choices[0], "delta", None)
        for piece in getattr(delta, "tool_calls", None) or []:
            self._add_call(piece)
        text = str(getattr(delta, "content", None) or getattr(delta, "refusal", None) or "")
        self._text.append(text)
        return text

    def _counted(self) -> Usage | None:
        usage = self._usage
        given = counted(getattr(usage, "prompt_tokens", None))
        written = counted(getattr(usage, "completion_tokens", None))
        if given is None or written is None:
            return None
        details = getattr(usage, "prompt_tokens_details", None)
        cached = min(given, counted(getattr(details, "cached_tokens", None)) or 0)
        return Usage(input_tokens=given - cached, output_tokens=written, cache_read_tokens=cached)

    def _add_call(self, piece: Any) -> None:
        """Adds a piece to its call; a server that numbers all calls alike is told by their ids."""
        index = getattr(piece, "index", None) or 0
        call_id = str(getattr(piece, "id", None) or "")
        draft = self._drafts.at(index)
        if draft is None or (call_id and draft.call_id and call_id != draft.call_id):
            draft = self._drafts.begin(index)
        function = getattr(piece, "function", None)
        draft.call_id = draft.call_id or call_id
        draft.name = draft.name or str(getattr(function, "name", None) or "")
        draft.arguments.append(str(getattr(function, "arguments", None) or ""))
