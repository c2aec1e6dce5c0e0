"""Tokens guessed from text, for models that do not count, and counts read that others sent."""

import json
from collections.abc import Sequence
from typing import Any

from meshwright.agents.models.model import Call, Prompt, Usage, estimated_tokens

CHARACTERS_PER_TOKEN = 4
"""The same guess the other way round, to keep text within tokens."""
MOST_TOKENS = 2**31 - 1
"""A larger count is an error of the provider's."""


def input_tokens(prompt: Prompt) -> int:
    """Guesses what a prompt takes just as budgets do before the call: instructions and messages, not the tools."""
    return estimated_tokens(prompt.instructions) + sum(estimated_tokens(message.text) for message in prompt.messages)


def estimated_usage(prompt: Prompt, text: str, calls: Sequence[Call]) -> Usage:
    """Guesses the tokens of one call: the prompt in; words and calls out."""
    written = "".join(f"{call.tool}{json.dumps(call.arguments)}" for call in calls)
    return Usage(input_tokens=input_tokens(prompt), output_tokens=estimated_tokens(text + written))


def counted(value: Any) -> int | None:
    """Returns a count of tokens that a provider sent; None: it is none."""
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else None
