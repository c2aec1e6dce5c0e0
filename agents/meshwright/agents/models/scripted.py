"""A model that plays replies from a file: for tests, demos and load without a provider."""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from meshwright.agents.models.estimate import estimated_usage
from meshwright.agents.models.model import Answer, Call, OnText, Prompt, Usage
from meshwright.core.errors import MeshError, ModelRejectedError, ModelUnavailableError, RateLimitedError, SetupError
from meshwright.core.mistake import mistakes

DEFAULT = "default"
"""The entry that answers for agents without an entry of their own."""

_ERRORS: dict[str, type[MeshError]] = {"UNAVAILABLE": ModelUnavailableError, "RESOURCE_EXHAUSTED": RateLimitedError}
_PIECE = re.compile(r"\s*\S+\s*?(?=\s\S|$)|\s+")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedCall(_Part):
    """A tool call that a reply asks for."""

    name: str = Field(min_length=1)
    arguments: dict[str, Any] = {}


class ScriptedUsage(_Part):
    """Tokens that a reply is said to have taken."""

    input_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)


class ScriptedFailure(_Part):
    """How a reply fails: `UNAVAILABLE`, `RESOURCE_EXHAUSTED`, or any other code for a refusal."""

    code: str
    message: str = "scripted failure"


class ScriptedReply(_Part):
    """One model call: its text comes first, then its failure if it has one.

    Attributes:
        text: What is said.
        tool_calls: What is asked for.
        usage: Tokens; estimated when missing.
        latency_ms: How long the call takes, half of it before the first word.
        error: What the call ends with.
    """

    text: str = ""
    tool_calls: list[ScriptedCall] = []
    usage: ScriptedUsage | None = None
    latency_ms: int = Field(0, ge=0)
    error: ScriptedFailure | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set & {"text", "tool_calls", "error"}:
            raise ValueError("a reply needs text, tool_calls or error")
        return self


class Script(_Part):
    """A file of replies, by agent."""

    agents: dict[str, Annotated[list[ScriptedReply], Field(min_length=1)]]


class ScriptedModel:
    """Gives the n-th reply of a script to the n-th model call of a task; the last reply repeats.

    Replies are played as they are: where an answer is to be JSON, the script's author writes it.

    Args:
        path: YAML file, `agents: {NAME or default: [reply, ...]}`; see `ScriptedReply`.

    Raises:
        SetupError: The file cannot be read or is no script; the message names the place.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._script = _loaded(self._path)

    @property
    def provider(self) -> str:
        """`scripted`."""
        return "scripted"

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    async def close(self) -> None:
        """Holds nothing open."""

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Plays the reply for this turn of this agent."""
        reply = self._reply(prompt)
        await asyncio.sleep(reply.latency_ms / 2_000)
        for piece in _PIECE.findall(reply.text):
            on_text(piece)
        await asyncio.sleep(reply.latency_ms / 2_000)
        if reply.error:
            raise _ERRORS.get(reply.error.code, ModelRejectedError)(reply.error.message)
        calls = tuple(
            Call(f"call_{prompt.turn}_{index}", call.name, dict(call.arguments))
            for index, call in enumerate(reply.tool_calls)
        )
        usage = Usage(**reply.usage.model_dump()) if reply.usage else estimated_usage(prompt, reply.text, calls)
        return Answer(reply.text, calls, usage, self.provider, self.name, "tool_calls" if calls else "stop")

    def _reply(self, prompt: Prompt) -> ScriptedReply:
        replies = self._script.agents.get(prompt.agent) or self._script.agents.get(DEFAULT)
        if replies is None:
            raise ModelRejectedError(f"{self._path} has no replies for {prompt.agent}: add agents.{prompt.agent}")
        return replies[min(prompt.turn, len(replies) - 1)]


def _loaded(path: Path) -> Script:
    try:
        return Script.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SetupError(f"cannot read the script {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"the script {path} is no UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f"{error.problem_mark.line + 1}" if error.problem_mark else "?"
        raise SetupError(f"the script {path} is no YAML, line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SetupError(f"the script {path} is no YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = mistakes(error, Script)[0]
        raise SetupError(f"the script {path} is wrong at {first.place or 'the file'}: {first.words}") from None
