"""The OpenAI model against a real HTTP server."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshwright.agents.models.model import Answer, Call, Message, Prompt, ToolSpec, Usage
from meshwright.agents.models.openai import OpenAIModel
from meshwright.agents.models.openai_request import WireNames
from meshwright.agents.models.openai_stream import NOT_JSON
from meshwright.core.errors import (
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    SetupError,
)

KEY = "sk-very-secret"
SEARCH = ToolSpec("docs.search", "Finds passages.", {"type": "object", "properties": {"query": {"type": "string"}}})
QUESTION = Prompt("researcher", "Be brief.", (Message("user", "What is Valkey?"),), (SEARCH,))


@asynccontextmanager
async def model_at(url: str, **options: Any) -> AsyncIterator[OpenAIModel]:
    model = OpenAIModel("small", url, KEY, **options)
    yield model
    await model.close()


async def ask(url: str, prompt: Prompt = QUESTION, **options: Any) -> tuple[Answer, list[str]]:
    pieces: list[str] = []
    async with model_at(url, **options) as model:
        return await model.answer(prompt, pieces.append), pieces


async def failure(url: str, **options: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await ask(url, **options)
    assert KEY not in str(caught.value)
    return caught.value


def call_piece(index: int | None, arguments: str, call_id: str = "", name: str = "") -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "function": function, **({"id": call_id, "type": "function"} if call_id else {})}


async def test_text_is_passed_on_in_the_pieces_in_which_it_arrives(openai_server: Any) -> None:
    openai_server.says("Valkey is ", "a store.")
    answer, pieces = await ask(openai_server.url)
    assert pieces == ["Valkey is ", "a store."]
    assert answer.text == "Valkey is a store."
    assert (answer.provider, answer.model, answer.stop_reason, answer.calls) == ("openai", "small", "stop", ())


async def test_the_request_holds_instructions_messages_tools_and_the_token_limit(openai_server: Any) -> None:
    openai_server.says("Done.")
    called = Message("assistant", "", (Call("c1", "docs.search", {"query": "größe"}),))
    outcome = Message("tool", '{"hits": []}', call_id="c1")
    await ask(openai_server.url, Prompt("a", "Be brief.", (Message("user", "Why?"), called, outcome), (SEARCH,), 1, 77))
    (body,) = openai_server.requests
    assert openai_server.paths == ["/v1/chat/completions"]
    assert openai_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["stream"], body["stream_options"]) == ("small", True, {"include_usage": True})
    assert body["max_tokens"] == 77
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    function = body["messages"][2]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("docs__search", {"query": "größe"})
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": '{"hits": []}'}
    assert body["tools"][0]["function"]["name"] == "docs__search"
    assert body["tools"][0]["function"]["parameters"] == SEARCH.parameters


async def test_without_instructions_and_tools_the_request_names_neither(openai_server: Any) -> None:
    openai_server.says("Done.")
    await ask(openai_server.url, Prompt("a", "", (Message("user", "Why?"),)))
    (body,) = openai_server.requests
    assert "tools" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]


async def test_parallel_tool_calls_split_over_chunks_are_put_together(openai_server: Any) -> None:
    chunk = openai_server.chunk
    openai_server.streams(
        chunk({"role": "assistant", "tool_calls": [call_piece(0, "", "a1", "docs__search")]}),
        chunk({"tool_calls": [call_piece(0, '{"que')]}),
        chunk({"tool_calls": [call_piece(1, '{"query": "b"}', "b1", "docs__search"), call_piece(0, 'ry": "a"}')]}),
        chunk({}, "tool_calls"),
    )
    answer, pieces = await ask(openai_server.url)
    assert answer.calls == (Call("a1", "docs.search", {"query": "a"}), Call("b1", "docs.search", {"query": "b"}))
    assert (answer.text, answer.stop_reason, pieces) == ("", "tool_calls", [])


async def test_calls_that_a_server_numbers_alike_are_told_apart_by_their_ids(openai_server: Any) -> None:
    pieces = [call_piece(0, "{}", "a1", "docs__search"), call_piece(0, "{}", "b1", "docs__read")]
    openai_server.streams(openai_server.chunk({"tool_calls": pieces}, "tool_calls"))
    answer, _ = await ask(openai_server.url)
    assert [(call.call_id, call.tool) for call in answer.calls] == [("a1", "docs.search"), ("b1", "docs.read")]


async def test_calls_without_an_id_get_one_each(openai_server: Any) -> None:
    pieces = [call_piece(0, "", name="docs__search"), call_piece(1, "{}", name="docs__search")]
    openai_server.streams(openai_server.chunk({"tool_calls": pieces}, "stop"))
    answer, _ = await ask(openai_server.url)
    assert [(call.call_id, call.arguments) for call in answer.calls] == [("call_0_0", {}), ("call_0_1", {})]


@pytest.mark.parametrize("written", ['{"query": ', "[1, 2]", "null", "not json"])
async def test_arguments_that_are_no_json_object_come_back_as_what_they_were(openai_server: Any, written: str) -> None:
    openai_server.streams(openai_server.chunk({"tool_calls": [call_piece(0, written, "a", "docs__search")]}, "stop"))
    answer, _ = await ask(openai_server.url)
    assert answer.calls[0].arguments == {NOT_JSON: written}


async def test_cached_tokens_are_counted_apart(openai_server: Any) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    openai_server.says("Hi.", usage={**usage, "prompt_tokens_details": {"cached_tokens": 60}})
    answer, _ = await ask(openai_server.url)
    assert answer.usage == Usage(input_tokens=40, output_tokens=7, cache_read_tokens=60)


async def test_a_server_that_counts_no_tokens_gets_an_estimate(openai_server: Any) -> None:
    openai_server.says("word " * 40)
    answer, _ = await ask(openai_server.url)
    assert answer.usage.output_tokens == 51
    assert answer.usage.input_tokens == 7


async def test_a_full_answer_says_why_it_stops(openai_server: Any) -> None:
    openai_server.streams(openai_server.chunk({"content": "Half a"}, "length"))
    assert (await ask(openai_server.url))[0].stop_reason == "length"


async def test_a_refusal_is_text(openai_server: Any) -> None:
    openai_server.streams(openai_server.chunk({"refusal": "I cannot."}), openai_server.chunk({}, "stop"))
    assert (await ask(openai_server.url))[0].text == "I cannot."


async def test_a_rate_limit_that_lasts_long_is_reported_at_once(openai_server: Any) -> None:
    openai_server.fails(429, "slow down", headers={"retry-after": "60"})
    error = await failure(openai_server.url)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == 60
    assert "slow down" in error.message
    assert len(openai_server.requests) == 1


async def test_a_date_to_come_back_at_is_read_too(openai_server: Any) -> None:
    openai_server.fails(429, headers={"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"})
    error = await failure(openai_server.url)
    assert error.retry_after_s is not None
    assert error.retry_after_s > 1e9


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "OPENAI_API_KEY"), (403, "another model"), (404, "/v1"), (400, "context too long"), (422, "too long")],
)
async def test_a_refusal_for_good_says_what_to_do_and_is_not_repeated(
    openai_server: Any, status: int, advice: str
) -> None:
    openai_server.fails(status, f"context too long, key {KEY}")
    error = await failure(openai_server.url)
    assert isinstance(error, ModelRejectedError)
    assert advice in error.message
    assert len(openai_server.requests) == 1


async def test_a_used_up_quota_is_a_refusal_although_its_status_is_that_of_a_rate_limit(openai_server: Any) -> None:
    openai_server.fails(429, "pay", code="insufficient_quota")
    assert isinstance(await failure(openai_server.url), ModelRejectedError)


async def test_a_port_where_nobody_listens_is_named() -> None:
    error = await failure("http://127.0.0.1:9/v1")
    assert isinstance(error, ModelUnavailableError)
    assert "http://127.0.0.1:9/v1" in error.message


async def test_credentials_in_the_base_url_stay_out_of_errors() -> None:
    error = await failure("http://me:hidden@127.0.0.1:9/v1")
    assert "hidden" not in error.message
    assert "http://127.0.0.1:9/v1" in error.message


async def test_a_silent_server_counts_as_gone(openai_server: Any) -> None:
    openai_server.says("Late.", delay_s=0.4)
    error = await failure(openai_server.url, timeout_s=0.05)
    assert isinstance(error, ModelUnavailableError)
    assert "in time" in error.message


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_stream_that_breaks_off_is_no_answer_and_not_repeated_once_text_went_out(
    openai_server: Any, *, is_cut: bool
) -> None:
    openai_server.streams(openai_server.chunk({"content": "Half"}), is_done=False, is_cut=is_cut)
    pieces: list[str] = []
    async with model_at(openai_server.url) as model:
        with pytest.raises(ModelUnavailableError):
            await model.answer(QUESTION, pieces.append)
    assert pieces == ["Half"]
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize(
    "data",
    ['{"choices": []}', "{not json", "[1]", "{}", '{"choices": null}', '{"choices": [{}]}', '"text"', "7"],
)
async def test_a_stream_without_an_answer_is_unavailable(openai_server: Any, data: str) -> None:
    openai_server.streams(data)
    assert isinstance(await failure(openai_server.url), ModelUnavailableError)


async def test_a_web_page_is_no_answer(openai_server: Any) -> None:
    openai_server.streams()
    openai_server.replies[0].headers = {"content-type": "text/html"}
    openai_server.replies[0].body = b"<html>Welcome</html>"
    error = await failure(openai_server.url)
    assert isinstance(error, ModelUnavailableError)
    assert "base URL" in error.message


@pytest.mark.parametrize(
    ("kind", "expected"), [("server_error", ModelUnavailableError), ("invalid_request_error", ModelRejectedError)]
)
async def test_an_error_in_the_stream_is_an_error(openai_server: Any, kind: str, expected: type[MeshError]) -> None:
    openai_server.streams(json.dumps({"error": {"message": f"broken {KEY}", "type": kind}}))
    error = await failure(openai_server.url)
    assert isinstance(error, expected)
    assert "broken" in error.message


async def test_a_listener_that_fails_is_not_taken_for_a_failing_server(openai_server: Any) -> None:
    openai_server.says("One.", "Two.")

    def refuse(_: str) -> None:
        raise ValueError("full")

    async with model_at(openai_server.url) as model:
        with pytest.raises(ValueError, match="full"):
            await model.answer(QUESTION, refuse)
    assert len(openai_server.requests) == 1


async def test_a_cancelled_call_ends_at_once(openai_server: Any) -> None:
    openai_server.says("Late.", delay_s=0.5)
    async with model_at(openai_server.url) as model:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await model.answer(QUESTION, lambda _: None)


async def test_loopback_is_reached_past_a_proxy(openai_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    openai_server.says("Here.")
    assert (await ask(openai_server.url))[0].text == "Here."


async def test_a_server_without_keys_is_asked_without_one(openai_server: Any) -> None:
    openai_server.says("Here.")
    model = OpenAIModel("small", openai_server.url, "")
    assert (await model.answer(QUESTION, lambda _: None)).text == "Here."
    await model.close()


async def test_openai_itself_gets_the_newer_name_of_the_token_limit() -> None:
    model = OpenAIModel("small", "https://api.openai.com/v1", KEY)
    assert model._bound == "max_completion_tokens"
    await model.close()


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://host/v1", "http://", "http://[", "http://host:port/v1"])
def test_a_base_url_that_is_none_is_a_setup_error(url: str) -> None:
    with pytest.raises(SetupError, match="http://HOST:PORT/v1"):
        OpenAIModel("small", url, KEY)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SetupError, match=r"pip install 'meshwright\[llm\]'"):
        OpenAIModel("small", "http://127.0.0.1:9/v1", KEY)


def test_importing_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, meshwright.agents.models.catalog; sys.exit('openai' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_names_keep_to_the_allowed_letters_and_find_back() -> None:
    long = "a." * 40
    names = ["docs.search", "docs__search", "ask.code-reviewer", long, long + "b"]
    wire = WireNames(names)
    spelled = [wire.wire(name) for name in names]
    assert spelled[:3] == ["docs__search", "docs__search_2", "ask__code-reviewer"]
    assert len(set(spelled)) == len(names)
    assert all(len(each) <= 64 for each in spelled)
    assert [wire.own(each) for each in spelled] == names


def test_a_tool_that_was_never_offered_keeps_the_name_that_was_meant() -> None:
    assert WireNames([]).own("docs__delete") == "docs.delete"
