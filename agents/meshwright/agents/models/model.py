"""What a language model is to an agent: messages and tools in, one answer out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it.

    Attributes:
        name: Dotted name, `docs.search`; an agent that may be delegated to appears as `ask.AGENT`.
        description: What it does, for the model.
        parameters: JSON Schema 2020-12 of type object.
    """

    name: str
    description: str
    parameters: JsonObject


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a model asks for; `call_id` is unique within its answer."""

    call_id: str
    tool: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation.

    Attributes:
        role: `user`, `assistant`, or `tool` for the outcome of a call.
        text: What is said; for `tool`, the outcome as JSON text, a failure as `{"error": {"reason", "message"}}`, and
            for an agent that was asked, its answer as it is.
        calls: What an `assistant` message asked for.
        call_id: The call that a `tool` message answers.
    """

    role: Literal["user", "assistant", "tool"]
    text: str
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; cached ones apart, and not contained in `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that a model is given for one call.

    Attributes:
        agent: The agent that asks.
        instructions: System text.
        messages: Oldest first; the first one is the task's prompt (after earlier turns of its session).
        tools: What may be called; empty: answer in words.
        turn: Which model call of the task this is, from 0.
        max_output_tokens: Upper bound for the answer.
        output_schema: JSON Schema 2020-12 of type object that the answer's words are to satisfy as JSON. Models do
            what they can; whoever asks checks.
    """

    agent: str
    instructions: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    turn: int = 0
    max_output_tokens: int = 4096
    output_schema: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished model call: words, or calls (then the words are a side remark)."""

    text: str
    calls: tuple[Call, ...]
    usage: Usage
    provider: str
    model: str
    stop_reason: str = "stop"


OnText = Callable[[str], None]
"""Takes each piece of text while the model writes; must not block."""


class Model(Protocol):
    """A language model behind any provider."""

    @property
    def provider(self) -> str:
        """The kind of provider: `offline`, `openai`, `scripted`."""
        ...

    @property
    def name(self) -> str:
        """The model's name at the provider."""
        ...

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks the model once.

        Raises:
            ModelUnavailableError: The provider failed in a way that may pass.
            RateLimitedError: The provider asks to slow down.
            ModelRejectedError: The request can never succeed as it is.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


def estimated_tokens(text: str) -> int:
    """Guesses tokens before a call, four characters each; the provider's own count replaces the guess after it."""
    return len(text) // 4 + 1
