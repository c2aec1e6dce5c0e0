"""A conversation that is played to its end, and an HTTP server that speaks the chat-completions wire format."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from meshwright.agents.models.model import Call, Message, Model, Prompt, ToolSpec, estimated_tokens

Tool = Callable[[dict[str, Any]], Any]


@dataclass
class Played:
    """A task from its prompt to its last words."""

    text: str = ""
    pieces: list[str] = field(default_factory=list)
    rounds: list[tuple[Call, ...]] = field(default_factory=list)
    stop_reason: str = ""
    spent: int = 0
    rooms: list[int] = field(default_factory=list)


Play = Callable[..., Awaitable[Played]]


@pytest.fixture
def play() -> Play:
    """Plays a task against a model within a budget of tokens, as a runner would.

    Tools are functions of their arguments; what they return is sent as JSON, a `Raw` as it is.
    """

    async def run(
        model: Model,
        task: str,
        tools: Mapping[ToolSpec, Tool] | Sequence[tuple[ToolSpec, Tool]] = (),
        *,
        history: Sequence[Message] = (),
        turns: int = 5,
        tools_until: int = 99,
        budget: int = 1_000_000,
        most_output: int = 4096,
        instructions: str = "Be brief.",
    ) -> Played:
        pairs = list(tools.items() if isinstance(tools, Mapping) else tools)
        functions = {spec.name: function for spec, function in pairs}
        specs = tuple(spec for spec, _ in pairs)
        messages = [*history, Message("user", task)]
        played = Played()
        for turn in range(turns):
            offered = specs if turn < tools_until else ()
            said = estimated_tokens(instructions) + sum(estimated_tokens(message.text) for message in messages)
            played.rooms.append(budget - played.spent - said)
            assert played.rooms[-1] > 0, f"the prompt of turn {turn} breaks the budget"
            prompt = Prompt("any", instructions, tuple(messages), offered, turn, min(most_output, played.rooms[-1]))
            answer = await model.answer(prompt, played.pieces.append)
            played.spent += answer.usage.input_tokens + answer.usage.output_tokens
            if not answer.calls:
                played.text, played.stop_reason = answer.text, answer.stop_reason
                return played
            played.rounds.append(answer.calls)
            messages.append(Message("assistant", answer.text, answer.calls))
            for call in answer.calls:
                value = functions[call.tool](call.arguments)
                value = await value if inspect.isawaitable(value) else value
                text = str(value) if isinstance(value, Raw) else json.dumps(value)
                messages.append(Message("tool", text, call_id=call.call_id))
        pytest.fail(f"no last words within {turns} turns")

    return run


class Raw(str):
    """The text of a tool message as it stands."""

    __slots__ = ()


@pytest.fixture
def raw() -> type[Raw]:
    return Raw


@dataclass
class Reply:
    """One HTTP response; `is_cut` closes the connection in the middle of it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False
    delay_s: float = 0.0


class OpenAIServer:
    """Answers chat completions from a list; the last reply repeats."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""

    def streams(self, *chunks: dict[str, Any] | str, is_done: bool = True, **reply: Any) -> None:
        """Adds a reply of server-sent events; a `str` is sent as the data it is."""
        data = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
        events = "".join(f"data: {each}\n\n" for each in [*data, *(["[DONE]"] if is_done else [])])
        self.replies.append(Reply(headers={"content-type": "text/event-stream"}, body=events.encode(), **reply))

    def says(self, *texts: str, usage: dict[str, Any] | None = None, **reply: Any) -> None:
        """Adds a reply of plain text."""
        chunks = [self.chunk({"content": text}) for text in texts]
        ending = (
            [] if usage is None else [{"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage}]
        )
        self.streams(*chunks, self.chunk({}, "stop"), *ending, **reply)

    def fails(self, status: int, message: str = "no", headers: dict[str, str] | None = None, **error: str) -> None:
        """Adds a reply with an error status."""
        body = json.dumps({"error": {"message": message, **error}}).encode()
        self.replies.append(Reply(status, {"content-type": "application/json", **(headers or {})}, body))

    @staticmethod
    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """Builds one chunk of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.paths.append(head[0].split(" ")[1])
        self.headers.append(headers)
        self.requests.append(json.loads(body))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        await asyncio.sleep(reply.delay_s)
        length = len(reply.body) + (100 if reply.is_cut else 0)
        lines = {**reply.headers, "content-length": str(length), "connection": "close"}
        start = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(start.encode() + b"\r\n" + reply.body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    server = OpenAIServer()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener:
        yield server
