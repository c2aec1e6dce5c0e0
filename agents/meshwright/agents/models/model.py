"""What a language model is to an agent: messages and tools in, one answer out."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
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
    tokens: int = field(init=False, compare=False, repr=False)
    """What it takes of a prompt, guessed as text is."""

    def __post_init__(self) -> None:
        written = f"{self.name}{self.description}{json.dumps(self.parameters)}"
        object.__setattr__(self, "tokens", estimated_tokens(written))


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
    _tokens: int = field(default=0, init=False, compare=False, repr=False)

    @property
    def tokens(self) -> int:
        """What it takes of a prompt, guessed as text is, its calls included; counted once."""
        if not self._tokens:
            tokens = estimated_tokens(self.text)
            for call in self.calls:
                tokens += estimated_tokens(f"{call.tool}{json.dumps(call.arguments)}")
            object.__setattr__(self, "_tokens", tokens)
        return self._tokens


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
        boundary: Random text of this task with which a model is shown where content of others begins and ends; see
            `models.untrusted`. Empty: nothing is marked.
    """

    agent: str
    instructions: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    turn: int = 0
    max_output_tokens: int = 4096
    output_schema: JsonObject | None = None
    boundary: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """What an answer from before took when it was made; `tokens` are those read and written."""

    tokens: int
    micros: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished model call: words, or calls (then the words are a side remark).

    Attributes:
        text: What is said.
        calls: What is asked for.
        usage: What it took.
        provider: The kind of provider.
        model: The model's name at the provider.
        stop_reason: `stop`, `tool_calls`, `length` (a limit cut it short) or `content_filter` (the provider refused); a
            provider's word for anything else stays as it is.
        routed_because: Why this model was chosen; written by the router.
        is_degraded: Another model was to answer and could not; written by the router.
        saved: What is not spent a second time; None: a model has answered now.
    """

    text: str
    calls: tuple[Call, ...]
    usage: Usage
    provider: str
    model: str
    stop_reason: str = "stop"
    routed_because: str = ""
    is_degraded: bool = False
    saved: Saved | None = None


OnText = Callable[[str], None]
"""Takes each piece of text while the model writes; must not block."""


class Model(Protocol):
    """A language model behind any provider."""

    @property
    def provider(self) -> str:
        """The kind of provider: `offline`, `openai`, `anthropic`, `scripted`."""
        ...

    @property
    def name(self) -> str:
        """The model's name at the provider."""
        ...

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks the model once; nothing is tried again here.

        Whether text was passed on before a failure, `on_text` has seen.

        Raises:
            ModelUnavailableError: The provider cannot be reached, failed, broke off, or took too long.
            RateLimitedError: The provider asks to slow down; `retry_after_s` says for how long, if it does.
            ModelRejectedError: The request can never succeed as it is: key, model or request are wrong.
            ContextTooLongError: The same, because the prompt is too long for the model.
            ResultTooLargeError: The provider sent more than an answer may have.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


def estimated_tokens(text: str) -> int:
    """Guesses tokens before a call, four characters each; the provider's own count replaces the guess after it."""
    return len(text) // 4 + 1
