"""An answer that comes in over a stream, whatever the wire."""

from abc import ABC, abstractmethod
from typing import Any

from meshwright.agents.models.calls import Drafts
from meshwright.agents.models.estimate import estimated_usage
from meshwright.agents.models.failure import LATER, Origin
from meshwright.agents.models.model import Answer, Prompt, Usage
from meshwright.agents.models.names import WireNames
from meshwright.core.errors import ModelUnavailableError


class Incoming(ABC):
    """Collects what one stream brings: words, calls, why it stopped, and what was counted.

    Args:
        prompt: What was asked.
        names: The spelling of the tools.
        origin: Where it comes from, for errors.
    """

    def __init__(self, prompt: Prompt, names: WireNames, origin: Origin) -> None:
        self._prompt = prompt
        self._names = names
        self._origin = origin
        self._text: list[str] = []
        self._drafts = Drafts(origin.name)
        self._stop_reason = ""
        self._has_begun = False

    @abstractmethod
    def add(self, piece: Any, /) -> str:
        """Takes what comes next and returns the text in it."""

    @abstractmethod
    def _counted(self) -> Usage | None:
        """Returns the server's own count; None when it sent none."""

    def answer(self, provider: str, model: str) -> Answer:
        """Returns what has arrived, once the stream is over.

        Raises:
            ModelUnavailableError: The stream held no answer, or broke off before its end.
        """
        if not self._has_begun:
            advice = "check that the base URL is right"
            raise self._origin.failed(ModelUnavailableError, f"sent no answer: {LATER}", "it sent no answer", advice)
        if not self._stop_reason:
            raise self._origin.broke_off()
        text = "".join(self._text)
        calls = self._drafts.calls(self._names, self._prompt.turn)
        usage = self._counted() or estimated_usage(self._prompt, text, calls)
        return Answer(text, calls, usage, provider, model, self._stop_reason)
