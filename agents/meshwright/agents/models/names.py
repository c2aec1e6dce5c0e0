"""Tool names as providers take them."""

import re
from collections.abc import Iterable

from meshwright.agents.models.model import Prompt

LONGEST_NAME = 64
"""Characters of a tool's name."""

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


class WireNames:
    """Tool names with the letters that all providers allow, and the way back.

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
        """Spells one of our names for a provider."""
        return self._wire[name]

    def own(self, wire: str) -> str:
        """Returns our name; one that was never offered comes back as the model must have meant it."""
        return self._own.get(wire) or wire.replace("__", ".")


def names_of(prompt: Prompt) -> WireNames:
    """Spells all tools that a prompt offers or mentions."""
    offered = [tool.name for tool in prompt.tools]
    return WireNames(offered + [call.tool for message in prompt.messages for call in message.calls])
