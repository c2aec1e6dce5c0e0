"""A model without a network, a key or a language model: fixed rules that do real work on real input."""

import asyncio
import re

from meshwright.agents.models.estimate import CHARACTERS_PER_TOKEN, estimated_usage
from meshwright.agents.models.model import Answer, Call, OnText, Prompt
from meshwright.agents.models.rules.citations import MARK, without_mark
from meshwright.agents.models.rules.delegation import delegation
from meshwright.agents.models.rules.documents import documents
from meshwright.agents.models.rules.own_tools import own_tool_first, own_tools
from meshwright.agents.models.rules.plans import plans
from meshwright.agents.models.rules.remembered import remembered
from meshwright.agents.models.rules.reviews import reviews
from meshwright.agents.models.rules.shape import shaped
from meshwright.agents.models.rules.situation import Do, Rule, Say, situation_of
from meshwright.agents.models.rules.summaries import summaries
from meshwright.agents.models.rules.unaided import arithmetic, confession, excerpt, plain_sum

RULES: tuple[Rule, ...] = (
    plain_sum,
    own_tool_first,
    delegation,
    plans,
    reviews,
    documents,
    summaries,
    own_tools,
    arithmetic,
    excerpt,
    remembered,
    confession,
)
"""In this order; the first one that decides on a move decides it."""
LAST_TURN = 4
"""Turn, from 0, on which the answer is words whatever happened before."""

_PIECE = re.compile(r"(?:\S+\s*|\s+){1,4}")


class OfflineModel:
    """Answers by rules, the same input always with the same words.

    It goes by what the prompt and its tools hold, never by who asks: it delegates to agents, searches and quotes
    documents, condenses text, calls tools, does arithmetic, and says so when it can do none of it. Every answer in
    words ends with the line `model: offline`. Where an answer is to be JSON with one text in it, the words become that
    text; any other object it would have to make up, and answers in words.

    Args:
        pace_s: Seconds that every answer takes, for those who want to watch; a real model takes them too.
    """

    def __init__(self, pace_s: float = 0.0) -> None:
        self._pace_s = pace_s

    @property
    def provider(self) -> str:
        """`offline`."""
        return "offline"

    @property
    def name(self) -> str:
        """`offline`."""
        return "offline"

    async def close(self) -> None:
        """Holds nothing open."""

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Decides on the next move; a task gets its last words on its fifth turn at the latest."""
        await asyncio.sleep(self._pace_s)
        situation = situation_of(prompt)
        move = next(move for rule in RULES if (move := rule(situation)))
        if isinstance(move, Do) and prompt.turn >= LAST_TURN:
            move = Say(f"Stopped after {prompt.turn} rounds of tool calls that led to no answer.")
        if isinstance(move, Do):
            calls = tuple(
                Call(f"call_{prompt.turn}_{index}", request.tool, request.arguments)
                for index, request in enumerate(move.requests)
            )
            return Answer("", calls, estimated_usage(prompt, "", calls), self.provider, self.name, "tool_calls")
        text, is_whole = _marked(move.text, prompt.max_output_tokens)
        if prompt.output_schema is not None:
            answer = shaped(text, prompt.output_schema)
            text = answer if len(answer) < CHARACTERS_PER_TOKEN * prompt.max_output_tokens else text
        for piece in _PIECE.findall(text):
            on_text(piece)
            await asyncio.sleep(0)
        reason = "stop" if is_whole else "length"
        return Answer(text, (), estimated_usage(prompt, text, ()), self.provider, self.name, reason)


def _marked(text: str, max_tokens: int) -> tuple[str, bool]:
    """Ends the text with the mark, once, and within the tokens that the answer may have."""
    plain = without_mark(text)
    room = max(0, CHARACTERS_PER_TOKEN * (max_tokens - 1) - len(MARK) - 2)
    return f"{plain[:room].rstrip()}\n\n{MARK}".lstrip(), len(plain) <= room
