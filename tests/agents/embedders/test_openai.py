"""Embeddings of an OpenAI-compatible endpoint, against a real HTTP server that fails as providers do."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from meshwright.agents.agent import Agent
from meshwright.agents.embedders.catalog import embedder_from
from meshwright.agents.embedders.embedder import DIMENSIONS, MOST_CHARACTERS
from meshwright.agents.embedders.openai import OpenAIEmbedder
from meshwright.agents.models.endpoint import MOST_BYTES
from meshwright.agents.models.failure import LONGEST_WISH_S
from meshwright.core.errors import (
    ContextTooLongError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    ResultTooLargeError,
    SetupError,
)
from tests.agents.embedders.embedding_server import EmbeddingServer, axis
from tests.agents.models.conftest import listening

KEY = "sk-planted-secret-0123456789"


@pytest.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with listening(EmbeddingServer()) as served:
        yield served


async def embedded(server: Any, *texts: str, url: str = "", timeout_s: float = 20.0) -> list[list[float]]:
    embedder = OpenAIEmbedder("small/3", url or server.url, KEY, timeout_s)
    try:
        return (await embedder.embed(texts or ["one"])).vectors
    finally:
        await embedder.close()


async def failure(server: Any, **options: Any) -> MeshError:
    """Asks in vain, and only once."""
    before = len(server.requests)
    with pytest.raises(MeshError) as caught:
        await embedded(server, **options)
    assert "planted" not in str(caught.value)
    assert len(server.requests) - before <= 1
    return caught.value


async def test_vectors_come_in_the_order_of_the_texts_with_length_one(server: Any) -> None:
    server.gives(axis(0, 2.0), axis(1, 0.1))
    assert await embedded(server, "one", "") == [axis(0), axis(1)]
    (request,) = server.requests
    assert server.paths == ["/v1/embeddings"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (request["model"], request["dimensions"], request["input"]) == ("small/3", DIMENSIONS, ["one", " "])


@pytest.mark.parametrize(("told", "tokens"), [(7, 7), (0, 0), (None, 2), (-1, 2), ("many", 2), (2**40, 2)])
async def test_tokens_are_counted_by_the_provider_or_guessed(server: Any, told: Any, tokens: int) -> None:
    server.gives(axis(0), tokens=told)
    embedder = OpenAIEmbedder("m", server.url, KEY)
    assert (await embedder.embed(["seven c"])).tokens == tokens
    await embedder.close()


async def test_no_more_of_a_text_is_sent_than_is_looked_at(server: Any) -> None:
    server.gives(axis(0))
    await embedded(server, "x" * 10 * MOST_CHARACTERS)
    assert server.requests[0]["input"] == ["x" * MOST_CHARACTERS]


async def test_its_name_can_stand_in_a_key() -> None:
    embedder = OpenAIEmbedder("small/3 größer", "http://127.0.0.1:9/v1", "")
    assert embedder.name == "openai-small-3-gr--er"
    await embedder.close()


@pytest.mark.parametrize(
    ("headers", "wish_s"), [({"retry-after": "60"}, 60), ({}, None), ({"retry-after": "inf"}, LONGEST_WISH_S)]
)
async def test_a_rate_limit_says_when_to_come_back(server: Any, headers: dict[str, str], wish_s: float | None) -> None:
    server.fails(429, f"slow down, {KEY}", headers)
    error = await failure(server)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == wish_s


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, ModelUnavailableError),
        (503, ModelUnavailableError),
        (400, ModelRejectedError),
        (401, ModelRejectedError),
        (404, ModelRejectedError),
        (413, ContextTooLongError),
    ],
)
async def test_failures_are_those_of_models(server: Any, status: int, kind: type[MeshError]) -> None:
    server.fails(status, f"no {KEY}")
    assert type(await failure(server)) is kind


async def test_a_used_up_quota_is_no_rate_limit(server: Any) -> None:
    server.fails(429, "pay", code="insufficient_quota")
    assert isinstance(await failure(server), ModelRejectedError)


async def test_a_redirect_is_not_followed_for_the_key_would_go_along(server: Any) -> None:
    server.sends("", status=307, headers={"location": f"{server.root}/elsewhere"})
    with structlog.testing.capture_logs() as lines:
        error = await failure(server)
    assert isinstance(error, ModelRejectedError)
    assert "base URL" in lines[0]["advice"]


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_end_is_refused(server: Any, status: int) -> None:
    server.sends('{"data": [', status=status, refrain=b" " * 2**18)
    error = await failure(server)
    assert isinstance(error, ResultTooLargeError)
    assert server.sent < 2 * MOST_BYTES


async def test_a_compressed_answer_is_refused_for_it_has_no_bound(server: Any) -> None:
    server.gives(axis(0), headers={"content-encoding": "gzip"})
    assert "compressed" in (await failure(server)).message


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "7",
        "[]",
        '"text"',
        "{}",
        "<html>Welcome</html>",
        '{"data": null}',
        '{"data": 7}',
        '{"data": [7]}',
        '{"data": [{"index": 0}]}',
        '{"data": [{"index": 1, "embedding": [1.0]}]}',
        '{"data": [{"index": 0, "embedding": null}]}',
        '{"data": [{"index": 0, "embedding": "AAAA"}]}',
        '{"data": [{"index": [], "embedding": [1.0]}]}',
        '{"error": "no"}',
        "[" * 100_000,
        *(f'{{"data": [{{"index": 0, "embedding": [{number}]}}]}}' for number in ("NaN", "1e999", "1e300", "null")),
        f'{{"data": [{{"index": 0, "embedding": [{"9" * 4_000}]}}]}}',
    ],
    ids=range(23),
)
async def test_what_is_no_embedding_is_told_as_such(server: Any, body: str) -> None:
    server.sends(body)
    assert isinstance(await failure(server), ModelUnavailableError)


@pytest.mark.parametrize("length", [0, 3, DIMENSIONS + 1])
async def test_a_model_with_another_length_is_refused(server: Any, length: int) -> None:
    server.gives([1.0] * length)
    with structlog.testing.capture_logs() as lines:
        error = await failure(server)
    assert isinstance(error, ModelRejectedError)
    assert "dimensions" in lines[0]["advice"]


async def test_silence_is_bounded(server: Any) -> None:
    server.sends("{", is_open=True)
    error = await failure(server, timeout_s=0.2)
    assert isinstance(error, ModelUnavailableError)
    assert "in time" in error.message
    await asyncio.wait_for(server.left.wait(), 5)


async def test_an_answer_that_trickles_is_given_up_as_well(server: Any) -> None:
    server.sends("{", refrain=b" ", pause_s=0.02)
    began = time.monotonic()
    assert "in time" in (await failure(server, timeout_s=0.4)).message
    assert time.monotonic() - began < 20


async def test_a_port_where_nobody_listens_is_named_in_the_log(server: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        error = await failure(server, url="http://me:hidden@127.0.0.1:9/v1")
    assert isinstance(error, ModelUnavailableError)
    assert lines[0]["server"] == "http://127.0.0.1:9/v1"
    assert "127.0.0.1" not in str(error.to_status())
    assert "hidden" not in str(lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_reached_past_a_proxy(server: Any, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.gives(axis(0))
    assert await embedded(server, url=server.url.replace("127.0.0.1", host)) == [axis(0)]


async def test_a_key_is_in_no_log_and_no_repr(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    server.fails(500, f"your key {KEY}")
    embedder = OpenAIEmbedder("m", server.url, KEY)
    with caplog.at_level(logging.DEBUG), pytest.raises(MeshError):
        await embedder.embed(["one"])
    await embedder.close()
    assert "planted" not in repr(embedder) + caplog.text


@pytest.mark.parametrize("url", ["http://", "http://[", "http://host:port/v1"])
def test_a_base_url_that_is_none_is_a_setup_error(url: str) -> None:
    with pytest.raises(SetupError):
        embedder_from(f"openai:m@{url}")


def test_a_key_that_no_header_can_hold_is_a_setup_error() -> None:
    with pytest.raises(SetupError, match="OPENAI_API_KEY") as caught:
        OpenAIEmbedder("m", "http://127.0.0.1:9", "sk planted")
    assert "planted" not in caught.value.message


async def test_a_memory_is_looked_for_again_when_the_provider_says(server: Any, mesh: Any, dial: Any) -> None:
    server.gives(axis(0))
    server.fails(429, "slow down", {"retry-after-ms": "300"})
    server.gives(axis(0))
    calls = [
        {"tool_calls": [{"name": "memory.remember", "arguments": {"fact": "The boat is called Albatross."}}]},
        {"tool_calls": [{"name": "memory.recall", "arguments": {"about": "What is the boat called?"}}]},
        {"text": "Done."},
    ]
    agent = Agent("worker", "Work.", remembers=True)
    script = json.dumps({"agents": {"default": calls}})
    client = dial(await mesh.agent(agent, script=script, embedder=f"openai:m@{server.url}"))
    events = await client.steps()
    recalled = next(event.tool_result for event in events if event.HasField("tool_result") and event.step == 2)
    assert recalled.result.list_value.values[0].struct_value["similarity"] == 1
    assert recalled.latency_ms >= 300
    assert len(server.requests) == 3
