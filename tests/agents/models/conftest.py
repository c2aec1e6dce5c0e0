"""A conversation that is played to its end, and HTTP servers that speak the providers' wire formats."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
    said: list[int] = field(default_factory=list)


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
            played.said.append(said)
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
    """One HTTP response.

    Attributes:
        is_cut: The connection is closed in the middle of it.
        delay_s: Seconds before it.
        is_open: Nothing follows the body, and the connection stays open.
        refrain: Follows the body again and again, for as long as the client reads.
        pause_s: Seconds before each refrain.
        piece: Bytes that are written at once; 0: all.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False
    delay_s: float = 0.0
    is_open: bool = False
    refrain: bytes = b""
    pause_s: float = 0.0
    piece: int = 0


class WireServer:
    """Answers from a list; the last reply repeats."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.sent = 0
        self.root = ""

    def replies_with(self, body: bytes, content_type: str = "text/event-stream", **reply: Any) -> None:
        """Adds a reply."""
        headers = {"content-type": content_type, **reply.pop("headers", {})}
        self.replies.append(Reply(headers=headers, body=body, **reply))

    def fails_with(self, status: int, error: Any, headers: dict[str, str] | None = None, **reply: Any) -> None:
        """Adds a reply with an error status."""
        self.replies_with(json.dumps(error).encode(), "application/json", status=status, headers=headers or {}, **reply)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.paths.append(head[0].split(" ")[1])
        self.headers.append(headers)
        self.requests.append(json.loads(body))
        self.asked.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        await asyncio.sleep(reply.delay_s)
        is_endless = reply.is_open or reply.refrain
        length = {} if is_endless else {"content-length": str(len(reply.body) + (100 if reply.is_cut else 0))}
        lines = {**reply.headers, **length, "connection": "close"}
        start = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(start.encode() + b"\r\n")
        step = reply.piece or len(reply.body) or 1
        for at in range(0, len(reply.body), step):
            writer.write(reply.body[at : at + step])
            await writer.drain()
            await asyncio.sleep(0)
        while reply.refrain:
            await asyncio.sleep(reply.pause_s)
            writer.write(reply.refrain)
            await writer.drain()
            self.sent += len(reply.refrain)
        if reply.is_open:
            await reader.read()
            self.left.set()


class OpenAIServer(WireServer):
    """Speaks chat completions."""

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @staticmethod
    def event(data: dict[str, Any] | str) -> bytes:
        """Spells one event; a `str` is the data as it is."""
        return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()

    @staticmethod
    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """Builds one chunk of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    def streams(self, *chunks: dict[str, Any] | str, is_done: bool = True, **reply: Any) -> None:
        """Adds a reply of server-sent events."""
        self.replies_with(b"".join(map(self.event, [*chunks, *(["[DONE]"] if is_done else [])])), **reply)

    def says(self, *texts: str, usage: dict[str, Any] | None = None, **reply: Any) -> None:
        """Adds a reply of plain text."""
        ending = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks = [self.chunk({"content": text}) for text in texts]
        self.streams(*chunks, self.chunk({}, "stop"), *([ending] if usage else []), **reply)

    def calls(self, *calls: tuple[str, str, tuple[str, ...]], usage: dict[str, Any] | None = None) -> None:
        """Adds a reply of calls: id, tool and the pieces of its arguments."""
        ending = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks = [self.chunk({"tool_calls": [piece]}) for piece in self._pieces(calls)]
        self.streams(*chunks, self.chunk({}, "tool_calls"), *([ending] if usage else []))

    @staticmethod
    def _pieces(calls: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[dict[str, Any]]:
        begun = [
            {"index": index, "id": call_id, "type": "function", "function": {"name": tool, "arguments": ""}}
            for index, (call_id, tool, _) in enumerate(calls)
        ]
        return begun + [
            {"index": index, "function": {"arguments": piece}}
            for index, (_, _, pieces) in enumerate(calls)
            for piece in pieces
        ]

    def fails(self, status: int, message: str = "no", headers: dict[str, str] | None = None, **error: str) -> None:
        """Adds a reply with an error status."""
        self.fails_with(status, {"error": {"message": message, **error}}, headers)


class AnthropicServer(WireServer):
    """Speaks messages."""

    @property
    def url(self) -> str:
        return self.root

    @staticmethod
    def event(data: dict[str, Any] | str, kind: str = "message_delta") -> bytes:
        """Spells one event; a `str` is the data as it is."""
        if isinstance(data, str):
            return f"event: {kind}\ndata: {data}\n\n".encode()
        return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()

    @staticmethod
    def begins(usage: dict[str, Any] | None = None) -> dict[str, Any]:
        """Builds the first event of a message."""
        facts = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
        return {"type": "message_start", "message": {**facts, **({"usage": usage} if usage else {})}}

    @staticmethod
    def ends(stop_reason: str = "end_turn", usage: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Builds the last events of a message."""
        delta = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, **({"usage": usage} if usage else {})}
        return [delta, {"type": "message_stop"}]

    @staticmethod
    def text(*texts: str, index: int = 0) -> list[dict[str, Any]]:
        """Builds a block of words."""
        deltas = [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
            for text in texts
        ]
        begin = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        return [begin, *deltas, {"type": "content_block_stop", "index": index}]

    @staticmethod
    def call(index: int, call_id: str, tool: str, pieces: Sequence[str]) -> list[dict[str, Any]]:
        """Builds a block that is a call."""
        block = {"type": "tool_use", "id": call_id, "name": tool, "input": {}}
        deltas = [
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in pieces
        ]
        begin = {"type": "content_block_start", "index": index, "content_block": block}
        return [begin, *deltas, {"type": "content_block_stop", "index": index}]

    def streams(self, *events: dict[str, Any] | str, **reply: Any) -> None:
        """Adds a reply of server-sent events."""
        self.replies_with(b"".join(map(self.event, events)), **reply)

    def says(self, *texts: str, usage: dict[str, Any] | None = None, **reply: Any) -> None:
        """Adds a reply of plain text."""
        self.streams(self.begins(usage), *self.text(*texts), *self.ends(usage=usage), **reply)

    def calls(self, *calls: tuple[str, str, tuple[str, ...]], usage: dict[str, Any] | None = None) -> None:
        """Adds a reply of calls: id, tool and the pieces of its arguments."""
        blocks = [event for index, call in enumerate(calls) for event in self.call(index, *call)]
        self.streams(self.begins(usage), *blocks, *self.ends("tool_use", usage))

    def fails(
        self, status: int, message: str = "no", headers: dict[str, str] | None = None, kind: str = "api_error"
    ) -> None:
        """Adds a reply with an error status."""
        self.fails_with(status, {"type": "error", "error": {"type": kind, "message": message}}, headers)


Server = TypeVar("Server", bound=WireServer)


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Server]:
    """Serves on a free port."""
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.root = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield server


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    async with listening(OpenAIServer()) as server:
        yield server


@pytest.fixture
async def anthropic_server() -> AsyncIterator[AnthropicServer]:
    async with listening(AnthropicServer()) as server:
        yield server
