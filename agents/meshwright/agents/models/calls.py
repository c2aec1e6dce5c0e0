"""Tool calls put together from the pieces in which they arrive."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.agents.models.model import Call, JsonObject
from meshwright.agents.models.names import WireNames
from meshwright.core.errors import ResultTooLargeError

NOT_JSON = "arguments_were_not_a_json_object"
"""The only argument of a call whose arguments could not be read; its value is what the model wrote.

Tools take no such argument, so the schema check refuses the call and the model reads what it did wrong; with no
arguments at all, a tool that requires none would run.
"""
LONGEST_QUOTE = 1_000
"""Characters of unreadable arguments that are kept."""
MOST_CALLS = 128
"""Calls that one answer may ask for."""


@dataclass(slots=True)
class Draft:
    """A tool call as far as it has arrived.

    Attributes:
        index: The place that the provider gives it.
        call_id: The provider's id; empty: none was sent.
        name: The tool, as the provider spells it.
        arguments: JSON text, in pieces.
    """

    index: Any
    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Drafts:
    """The tool calls of one answer.

    Args:
        model: Whose they are, for errors.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._drafts: list[Draft] = []

    def at(self, index: Any) -> Draft | None:
        """Returns the latest call at a place."""
        return next((draft for draft in reversed(self._drafts) if draft.index == index), None)

    def begin(self, index: Any, call_id: str = "", name: str = "") -> Draft:
        """Adds a call.

        Raises:
            ResultTooLargeError: There are `MOST_CALLS` already.
        """
        if len(self._drafts) == MOST_CALLS:
            raise ResultTooLargeError(f"{self._model} asks for more than {MOST_CALLS} calls at once")
        self._drafts.append(Draft(index, call_id, name))
        return self._drafts[-1]

    def calls(self, names: WireNames, turn: int) -> tuple[Call, ...]:
        """Returns the calls, each with an id of its own."""
        taken = {draft.call_id for draft in self._drafts}
        fresh = (call_id for number in itertools.count() if (call_id := f"call_{turn}_{number}") not in taken)
        found: dict[str, Call] = {}
        for draft in self._drafts:
            call_id = draft.call_id if draft.call_id and draft.call_id not in found else next(fresh)
            found[call_id] = Call(call_id, names.own(draft.name), read_arguments(draft.arguments))
        return tuple(found.values())


def read_arguments(pieces: Sequence[str]) -> JsonObject:
    """Reads arguments; nothing at all means that there are none."""
    text = "".join(pieces)
    try:
        value = json.loads(text, parse_constant=_refused) if text.strip() else {}
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {NOT_JSON: text[:LONGEST_QUOTE]}


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
