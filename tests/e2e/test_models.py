"""One agent file, unchanged, on every kind of model: a process each, real servers that speak the providers' wire."""

import asyncio
import json

import pytest

from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_OK
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_STOP, TASK_STATUS_COMPLETED, TaskRequest
from tests.agents.models.conftest import AnthropicServer, OpenAIServer, listening
from tests.e2e.conftest import HERE

WORDS = ("With tax ", "it is 297.5. ", "Do you ", "want to know more?")
SCRIPT = {
    "agents": {
        "accountant": [
            {
                "tool_calls": [{"name": "tax.add", "arguments": {"net": 250}}],
                "usage": {"input_tokens": 20, "output_tokens": 5},
            },
            {"text": "".join(WORDS), "usage": {"input_tokens": 20, "output_tokens": 5}},
        ]
    }
}
CALL = ("c1", "tax__add", ('{"net"', ": 250}"))


class Halting:
    """A writer that stops in its answer's second sentence until somebody has read the first one."""

    def __init__(self, writer, is_read):
        self._writer = writer
        self._is_read = is_read
        self._written = b""

    def write(self, piece):
        self._written += piece
        self._writer.write(piece)

    async def drain(self):
        await self._writer.drain()
        if WORDS[2].encode() in self._written:
            await self._is_read.wait()

    def close(self):
        self._writer.close()


class Halts:
    """A server of which a watcher reads the first sentence before it writes the second."""

    def __init__(self):
        super().__init__()
        self.is_read = asyncio.Event()

    async def handle(self, reader, writer):
        await super().handle(reader, Halting(writer, self.is_read))


class HaltingOpenAIServer(Halts, OpenAIServer):
    pass


class HaltingAnthropicServer(Halts, AnthropicServer):
    pass


@pytest.fixture
async def servers():
    """Servers that ask for the tool, then answer in pieces."""
    async with listening(HaltingOpenAIServer()) as openai, listening(HaltingAnthropicServer()) as anthropic:
        for server, counts in (
            (openai, ("prompt_tokens", "completion_tokens")),
            (anthropic, ("input_tokens", "output_tokens")),
        ):
            usage = dict(zip(counts, (20, 5), strict=True))
            server.calls(CALL, usage=usage)
            server.says(*WORDS, usage=usage, piece=64)
        yield {"openai": openai, "anthropic": anthropic}


def spec(kind, servers, folder):
    """Spells the model that a process is told to use."""
    if kind == "scripted":
        (folder / "script.yaml").write_text(json.dumps(SCRIPT))
        return f"scripted:{folder / 'script.yaml'}"
    return kind if kind == "offline" else f"{kind}:small@{servers[kind].url}"


@pytest.mark.parametrize("kind", ["offline", "scripted", "openai", "anthropic"])
async def test_an_agents_file_is_the_same_for_every_model(workers, servers, tmp_path, kind):
    worker = await workers.start(HERE / "accountant.py", model=spec(kind, servers, tmp_path))
    request = TaskRequest(prompt="What is 250 with tax?")
    events = []
    async for event in worker.client.agent.StreamSteps(request):
        events.append(event)
        if kind in servers and event.HasField("delta"):
            servers[kind].is_read.set()
    kept = [event for event in events if event.sequence]
    assert [event.WhichOneof("event") for event in kept] == [
        *("started", "llm_call", "tool_call", "tool_result", "llm_call", "result")
    ]
    first, called, outcome, last, result = (
        *(kept[1].llm_call, kept[2].tool_call, kept[3].tool_result, kept[4].llm_call, kept[5].result),
    )
    assert [(call.tool, dict(call.arguments)) for call in first.planned_calls] == [("tax.add", {"net": 250})]
    assert (called.tool, outcome.outcome, outcome.result.number_value) == ("tax.add", TOOL_OUTCOME_OK, 297.5)
    assert (result.status, result.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_STOP)
    assert "297.5" in result.output
    assert (result.steps_used, result.usage.model_calls, result.usage.tool_calls) == (2, 2, 1)
    for said in (first, last):
        assert (said.provider, said.usage.model_calls, said.degraded) == (kind, 1, False)
        assert min(said.usage.input_tokens, said.usage.output_tokens) > 0
    assert result.tokens_used == sum(said.usage.input_tokens + said.usage.output_tokens for said in (first, last))
    assert result.tokens_used == 50 or kind == "offline"
    check_deltas(events, kept[4].sequence, result.output)
    if kind in servers:
        assert sum(event.HasField("delta") for event in events) > 1
        check_requests(servers[kind])


def check_deltas(events, answered, output):
    """The words came piece by piece, before the answer was journaled, and are the answer."""
    at = next(place for place, event in enumerate(events) if event.sequence == answered)
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert deltas == [event.delta for event in events[:at] if event.HasField("delta")]
    shown = ""
    for delta in deltas:
        shown = shown[: delta.offset] + delta.text
    assert shown == output


def check_requests(server):
    """The model was told of the tool, asked to stream, and told what the tool gave."""
    asked, told = server.requests
    assert asked["stream"] is told["stream"] is True
    assert "tax__add" in json.dumps(asked["tools"])
    assert "297.5" in json.dumps(told["messages"][-1]["content"])
