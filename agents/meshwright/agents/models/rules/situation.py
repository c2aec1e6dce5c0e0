"""What a rule sees of a conversation, and the moves it can decide on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshwright.agents.context import HEADING
from meshwright.agents.models.estimate import input_tokens
from meshwright.agents.models.model import Call, JsonObject, Message, Prompt, ToolSpec
from meshwright.agents.shortening import is_shortened

LONGEST_REASON = 300
"""Characters of a failure that are repeated to the user."""
TOO_LONG = "what it gave back is too long for this task: give it a larger token budget"
UNEXPECTED = "what it gave back has not the form that was expected"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        round: Which of the task's answers asked for it, from 0.
        call: What was asked for.
        text: What came back.
        value: The JSON in `text`; None when it holds none.
        is_json: Whether `text` is JSON, as the result of every tool is; an agent answers in plain words.
    """

    round: int
    call: Call
    text: str
    value: Any
    is_json: bool

    @property
    def error(self) -> str:
        """The message of a failure, `{"error": {"message": ...}}`; empty when it is none."""
        error = self.value.get("error") if isinstance(self.value, dict) and len(self.value) == 1 else None
        return _first_line(str(error.get("message") or "no reason was given")) if isinstance(error, dict) else ""

    @property
    def is_failed(self) -> bool:
        """Whether this is no result of a tool."""
        return bool(self.error) or not self.is_json

    @property
    def is_shortened(self) -> bool:
        """Whether only its beginning and its end stand in the prompt; it was no failure, but it cannot be read."""
        return not self.is_json and is_shortened(self.text)

    @property
    def reason(self) -> str:
        """Why what came back is of no use; never the data that came back, which would pass for an answer."""
        if self.is_shortened:
            return TOO_LONG
        return self.error or (UNEXPECTED if self.is_json else _first_line(self.text))


@dataclass(frozen=True, slots=True)
class Situation:
    """A task as far as it has come.

    Attributes:
        task: What is asked.
        tools: What may be called.
        outcomes: What was called, oldest first.
        known: Pinned facts and the summary of what was left out; empty: there are none.
        said: Tokens of the prompt, all of which the next prompt holds again.
        room: Tokens that the answer may take. What is left of a small budget shows in it, so it also bounds how much a
            rule asks to be brought into the next prompt.
    """

    task: str
    tools: tuple[ToolSpec, ...]
    outcomes: tuple[Outcome, ...]
    said: int
    room: int
    known: str = ""

    def tool(self, name: str) -> ToolSpec | None:
        """Finds a tool that may be called now."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def outcomes_of(self, name: str) -> list[Outcome]:
        """Lists how the calls of one tool ended, oldest first."""
        return [outcome for outcome in self.outcomes if outcome.call.tool == name]


@dataclass(frozen=True, slots=True)
class Request:
    """A tool to call."""

    tool: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Do:
    """The move that calls tools, all at once."""

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """The move that ends the task with words."""

    text: str


Move = Do | Say
Rule = Callable[[Situation], Move | None]
"""Decides on a move, or leaves the situation to the next rule."""


def situation_of(prompt: Prompt) -> Situation:
    """Reads the current task out of a conversation that may hold earlier ones."""
    answers = [index for index, message in enumerate(prompt.messages) if message.role == "assistant"]
    begun = answers[-prompt.turn] if 0 < prompt.turn <= len(answers) else len(prompt.messages)
    asked = [index for index, message in enumerate(prompt.messages[:begun]) if message.role == "user"]
    start = asked[-1] if asked else 0
    task = prompt.messages[start].text.strip() if asked else ""
    outcomes = tuple(_outcomes(prompt.messages[start:]))
    first = prompt.messages[0].text if prompt.messages else ""
    known = first.removeprefix(HEADING).strip() if first.startswith(HEADING) else ""
    return Situation(task, prompt.tools, outcomes, input_tokens(prompt), prompt.max_output_tokens, known)


def _outcomes(messages: tuple[Message, ...]) -> list[Outcome]:
    """Pairs calls with what came back; call ids are unique within one answer only."""
    outcomes: list[Outcome] = []
    calls: dict[str, Call] = {}
    rounds = -1
    for message in messages:
        if message.role == "assistant" and message.calls:
            calls = {call.call_id: call for call in message.calls}
            rounds += 1
        elif message.role == "tool" and message.call_id in calls:
            outcomes.append(_outcome(rounds, calls.pop(message.call_id), message.text))
    return outcomes


def _outcome(rounds: int, call: Call, text: str) -> Outcome:
    try:
        return Outcome(rounds, call, text, json.loads(text), is_json=True)
    except (ValueError, RecursionError):
        return Outcome(rounds, call, text, None, is_json=False)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines() or ["it gave back nothing"]
    return lines[0][:LONGEST_REASON]
