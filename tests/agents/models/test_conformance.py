"""What every provider does alike: each one against a real HTTP server that speaks its wire format, faults included."""

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import structlog

from meshwright.agents.models.anthropic import AnthropicModel
from meshwright.agents.models.calls import MOST_CALLS, NOT_JSON
from meshwright.agents.models.endpoint import MOST_BYTES
from meshwright.agents.models.failure import LONGEST_WISH_S
from meshwright.agents.models.model import Answer, Call, Message, Prompt, ToolSpec, Usage
from meshwright.agents.models.openai import OpenAIModel
from meshwright.core.errors import (
    ContextTooLongError,
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    ResultTooLargeError,
    SetupError,
)

KEY = "sk-planted-secret-0123456789"
SEARCH = ToolSpec("docs.search", "Finds passages.", {"type": "object", "properties": {"query": {"type": "string"}}})
QUESTION = Prompt("researcher", "Be brief.", (Message("user", "What is Valkey?"),), (SEARCH,))


class OpenAIWire:
    """How chat completions spell what all providers say."""

    kind = "openai"
    model_class = OpenAIModel
    variable = "OPENAI_API_KEY"
    path = "/v1/chat/completions"
    stop_reasons = (("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("new", "new"))
    empty = ('{"choices": []}', '{"choices": null}', '{"choices": [{}]}', "{}")
    passing = ("server_error", "502")
    permanent = "invalid_request_error"
    too_long = ({"code": "context_length_exceeded"}, {"message": "This model's maximum context length is 8192 tokens"})

    def __init__(self, server: Any) -> None:
        self.server = server

    def stops(self, reason: str) -> None:
        self.server.streams(self.server.chunk({"content": "Words"}, reason))

    def usage(self, given: int, written: int, read: int) -> dict[str, Any]:
        details = {"prompt_tokens_details": {"cached_tokens": read}}
        return {"prompt_tokens": given + read, "completion_tokens": written, "total_tokens": given + written, **details}

    def half(self) -> bytes:
        return self.server.event(self.server.chunk({"content": "Half"}))

    def half_call(self) -> bytes:
        function = {"name": "docs__search", "arguments": '{"query": "va'}
        return self.server.event(self.server.chunk({"tool_calls": [{"index": 0, "id": "a", "function": function}]}))

    def ping(self) -> bytes:
        return b": ping\n\n"

    def raw(self, data: str) -> None:
        self.server.streams(data)

    def error_event(self, kind: str, message: str) -> bytes:
        return self.server.event({"error": {"message": message, "type": kind}})

    def many_calls(self, number: int) -> None:
        self.server.calls(*((f"c{index}", "docs__search", ("{}",)) for index in range(number)))

    def fails_for_size(self, said: dict[str, str]) -> None:
        self.server.fails(400, **({"message": "no"} | said))


class AnthropicWire(OpenAIWire):
    """How messages spell the same."""

    kind = "anthropic"
    model_class = AnthropicModel
    variable = "ANTHROPIC_API_KEY"
    path = "/v1/messages"
    stop_reasons = (("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("new", "new"))
    empty = ("{}", '{"type": "message_stop"}', '{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}')
    passing = ("overloaded_error", "api_error")
    too_long = ({"message": "prompt is too long: 208310 tokens > 200000 maximum"}, {"message": "exceed context limit"})

    def stops(self, reason: str) -> None:
        self.server.streams(self.server.begins(), *self.server.text("Words"), *self.server.ends(reason))

    def usage(self, given: int, written: int, read: int) -> dict[str, Any]:
        return {"input_tokens": given, "output_tokens": written, "cache_read_input_tokens": read}

    def half(self) -> bytes:
        events = [self.server.begins(), *self.server.text("Half")[:2]]
        return b"".join(map(self.server.event, events))

    def half_call(self) -> bytes:
        events = [self.server.begins(), *self.server.call(0, "a", "docs__search", ['{"query": "va'])[:2]]
        return b"".join(map(self.server.event, events))

    def ping(self) -> bytes:
        return self.server.event({"type": "ping"})

    def error_event(self, kind: str, message: str) -> bytes:
        return self.server.event({"type": "error", "error": {"type": kind, "message": message}})

    def fails_for_size(self, said: dict[str, str]) -> None:
        self.server.fails(400, kind="invalid_request_error", **said)


@pytest.fixture(params=["openai", "anthropic"])
def wire(request: Any, openai_server: Any, anthropic_server: Any) -> OpenAIWire:
    return OpenAIWire(openai_server) if request.param == "openai" else AnthropicWire(anthropic_server)


@asynccontextmanager
async def model_of(wire: Any, url: str = "", **options: Any) -> AsyncIterator[Any]:
    model = wire.model_class("small", url or wire.server.url, KEY, **options)
    yield model
    await model.close()


async def ask(wire: Any, prompt: Prompt = QUESTION, **options: Any) -> tuple[Answer, list[str]]:
    pieces: list[str] = []
    async with model_of(wire, **options) as model:
        return await model.answer(prompt, pieces.append), pieces


async def failure(wire: Any, **options: Any) -> MeshError:
    """Asks in vain, and only once."""
    before = len(wire.server.requests)
    with pytest.raises(MeshError) as caught:
        await ask(wire, **options)
    assert "planted" not in str(caught.value)
    assert len(wire.server.requests) - before <= 1
    return caught.value


async def failure_and_line(wire: Any, **options: Any) -> tuple[MeshError, MutableMapping[str, Any]]:
    """Asks in vain; returns what the caller is told, and the line that the log is told."""
    with structlog.testing.capture_logs() as lines:
        error = await failure(wire, **options)
    (line,) = lines
    assert line["event"] == "model_failed"
    assert "planted" not in str(line).lower()
    return error, line


async def test_text_is_passed_on_in_the_pieces_in_which_it_arrives(wire: Any) -> None:
    wire.server.says("Valkey is ", "a store.")
    answer, pieces = await ask(wire)
    assert pieces == ["Valkey is ", "a store."]
    assert answer.text == "Valkey is a store."
    assert (answer.provider, answer.model, answer.stop_reason, answer.calls) == (wire.kind, "small", "stop", ())


async def test_a_request_holds_key_model_tools_and_the_token_limit(wire: Any) -> None:
    wire.server.says("Done.")
    await ask(wire, Prompt("a", "Be brief.", (Message("user", "Why?"),), (SEARCH,), 1, 77))
    (body,), (headers,) = wire.server.requests, wire.server.headers
    assert wire.server.paths == [wire.path]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["accept-encoding"] == "identity"
    assert (body["model"], body["stream"], body["max_tokens"]) == ("small", True, 77)
    assert "docs__search" in json.dumps(body["tools"])


@pytest.mark.parametrize("piece", [1, 7])
async def test_characters_that_are_split_over_packets_arrive_whole(wire: Any, piece: int) -> None:
    wire.server.says("größer", " — 日本 🦊", piece=piece)
    answer, pieces = await ask(wire)
    assert pieces == ["größer", " — 日本 🦊"]
    assert answer.text == "größer — 日本 🦊"


async def test_parallel_calls_split_over_chunks_are_put_together(wire: Any) -> None:
    wire.server.calls(
        ("a1", "docs__search", ('{"que', 'ry": "ä', '"}')), ("b1", "docs__search", ("", '{"query"', ': "b"}'))
    )
    answer, pieces = await ask(wire)
    assert answer.calls == (Call("a1", "docs.search", {"query": "ä"}), Call("b1", "docs.search", {"query": "b"}))
    assert (answer.text, answer.stop_reason, pieces) == ("", "tool_calls", [])


async def test_calls_without_an_id_or_with_the_same_one_get_one_each(wire: Any) -> None:
    wire.server.calls(("", "docs__search", ()), ("x", "docs__search", ("{}",)), ("x", "docs__search", ("{}",)))
    answer, _ = await ask(wire)
    assert [call.call_id for call in answer.calls][:2] == ["call_0_0", "x"]
    assert len({call.call_id for call in answer.calls}) == 3
    assert all(call.arguments == {} for call in answer.calls)


@pytest.mark.parametrize(
    "written", ['{"query": ', "[1, 2]", "null", "not json", '{"a": NaN}', "[" * 100_000, "7" * 5_000]
)
async def test_arguments_that_are_no_json_object_come_back_as_what_they_were(wire: Any, written: str) -> None:
    wire.server.calls(("a", "docs__search", (written,)))
    answer, _ = await ask(wire)
    assert answer.calls[0].arguments == {NOT_JSON: written[:1_000]}


async def test_tokens_are_counted_by_the_provider_cached_ones_apart(wire: Any) -> None:
    wire.server.says("Hi.", usage=wire.usage(40, 7, 60))
    answer, _ = await ask(wire)
    assert answer.usage == Usage(input_tokens=40, output_tokens=7, cache_read_tokens=60)


@pytest.mark.parametrize("count", [None, -1, 2**40, "many", 1.5])
async def test_a_server_that_counts_no_tokens_gets_an_estimate(wire: Any, count: Any) -> None:
    usage = None if count is None else wire.usage(0, 0, 0) | dict.fromkeys(["prompt_tokens", "input_tokens"], count)
    wire.server.says("word " * 40, usage=usage)
    answer, _ = await ask(wire)
    assert answer.usage == Usage(input_tokens=7, output_tokens=51)


async def test_an_answer_says_why_it_stops(wire: Any) -> None:
    for theirs, ours in wire.stop_reasons:
        wire.server.replies.clear()
        wire.stops(theirs)
        answer, _ = await ask(wire)
        assert (answer.text, answer.stop_reason) == ("Words", ours)


@pytest.mark.parametrize(
    ("headers", "wish_s"),
    [
        ({"retry-after": "60"}, 60),
        ({"retry-after-ms": "150", "retry-after": "60"}, 0.15),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "inf"}, LONGEST_WISH_S),
        ({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}, LONGEST_WISH_S),
        ({"retry-after": "Fri, 01 Jan 99999999 00:00:00 GMT"}, None),
    ],
)
async def test_a_rate_limit_says_when_to_come_back(wire: Any, headers: dict[str, str], wish_s: float | None) -> None:
    wire.server.fails(429, f"slow down, {KEY}", headers)
    error = await failure(wire)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after_s == (None if wish_s is None else pytest.approx(wish_s))
    assert "slow down" in error.message


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
async def test_a_failure_that_may_pass_is_told_as_such_and_not_repeated_here(wire: Any, status: int) -> None:
    wire.server.fails(status, f"busy {KEY}", {"retry-after": "3"})
    error = await failure(wire)
    assert isinstance(error, ModelUnavailableError)
    assert error.is_retryable
    assert error.retry_after_s == 3
    assert "try again later" in error.message


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "status 400"),
        (401, "API_KEY"),
        (402, "quota"),
        (403, "another model"),
        (404, "base URL"),
        (422, "status 422"),
    ],
)
async def test_a_refusal_for_good_tells_the_log_what_to_do_and_the_caller_whom_to_ask(
    wire: Any, status: int, advice: str
) -> None:
    wire.server.fails(status, f"bad shape, key {KEY}")
    error, line = await failure_and_line(wire)
    assert isinstance(error, ModelRejectedError)
    assert not error.is_retryable
    assert error.message.startswith("the model small refuses the request")
    told = f"{line['error']}; {line.get('advice', '')}"
    assert advice in told
    assert status != 401 or wire.variable in told
    assert (line["server"], line["reason"]) == (wire.server.url, "MODEL_REJECTED")


@pytest.mark.parametrize("status", [307, 400, 401, 402, 403, 404, 413, 422, 429, 500])
async def test_a_caller_is_told_neither_address_nor_variable_nor_words_of_the_server(wire: Any, status: int) -> None:
    wire.server.fails(status, "upstream 10.9.8.7 is gone, mail ops@inside.example")
    error, line = await failure_and_line(wire)
    seen = str(error.to_status())
    assert "the model small" in seen
    for inside in ("127.0.0.1", "http", "10.9.8.7", "inside", wire.variable, "base URL"):
        assert inside not in seen
    assert line["server"] == wire.server.url


async def test_what_may_pass_is_told_the_log_once_and_a_refusal_each_time(wire: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        async with model_of(wire) as model:
            for status in (503, 503, 400, 400):
                wire.server.replies.clear()
                wire.server.fails(status, "no")
                with pytest.raises(MeshError):
                    await model.answer(QUESTION, lambda _: None)
    assert [line["reason"] for line in lines] == ["MODEL_UNAVAILABLE", "MODEL_REJECTED", "MODEL_REJECTED"]


async def test_a_prompt_that_is_too_long_is_told_from_other_refusals(wire: Any) -> None:
    for said in wire.too_long:
        wire.server.replies.clear()
        wire.fails_for_size(said)
        error = await failure(wire)
        assert isinstance(error, ContextTooLongError)
        assert "shorten the prompt" in error.message
    wire.server.replies.clear()
    wire.server.fails(413, "request too large")
    assert isinstance(await failure(wire), ContextTooLongError)


async def test_of_an_error_that_is_no_json_the_log_has_the_status(wire: Any) -> None:
    wire.server.replies_with(b"<html>" + b"no way " * 9_000, "text/html", status=500)
    _, line = await failure_and_line(wire)
    assert line["error"] == "it failed, status 500"


async def test_a_redirect_is_not_followed_for_the_key_would_go_along(wire: Any) -> None:
    wire.server.replies_with(b"", status=307, headers={"location": f"{wire.server.root}/elsewhere"})
    error, line = await failure_and_line(wire)
    assert isinstance(error, ModelRejectedError)
    assert "base URL" in line["advice"]


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_stream_that_is_cut_in_its_words_is_no_answer(wire: Any, *, is_cut: bool) -> None:
    wire.server.replies_with(wire.half(), is_cut=is_cut)
    pieces: list[str] = []
    async with model_of(wire) as model:
        with pytest.raises(ModelUnavailableError, match="broke off"):
            await model.answer(QUESTION, pieces.append)
    assert pieces == ["Half"]
    assert len(wire.server.requests) == 1


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_stream_that_is_cut_in_the_arguments_of_a_call_calls_nothing(wire: Any, *, is_cut: bool) -> None:
    wire.server.replies_with(wire.half_call(), is_cut=is_cut)
    assert isinstance(await failure(wire), ModelUnavailableError)


async def test_a_stream_without_an_answer_is_unavailable(wire: Any) -> None:
    for data in [*wire.empty, "{not json", "[1]", '"text"', "7", "null", "[" * 100_000, '{"choices": 7, "type": []}']:
        wire.server.replies.clear()
        wire.raw(data)
        error = await failure(wire)
        assert isinstance(error, ModelUnavailableError), data[:50]


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"\xff\xfe\n\ndata: \xff\n\n", b"{}"])
async def test_what_is_no_stream_is_no_answer(wire: Any, body: bytes) -> None:
    wire.server.replies_with(body, "text/html")
    assert isinstance(await failure(wire), ModelUnavailableError)


async def test_an_error_in_the_stream_is_sorted_by_the_providers_own_word(wire: Any) -> None:
    kinds = dict.fromkeys(wire.passing, ModelUnavailableError) | {
        wire.permanent: ModelRejectedError,
        "authentication_error": ModelRejectedError,
        "rate_limit_error": RateLimitedError,
    }
    for kind, expected in kinds.items():
        wire.server.replies.clear()
        wire.server.replies_with(wire.half() + wire.error_event(kind, f"broken {KEY}"))
        error, line = await failure_and_line(wire)
        assert isinstance(error, expected), kind
        assert "status" in line["error"]
        assert kind in line["error"] or not re.match("[A-Za-z]", kind)
        assert "broken" not in line["error"]  # the provider's words may quote the prompt


async def test_a_port_where_nobody_listens_is_named_in_the_log(wire: Any) -> None:
    error, line = await failure_and_line(wire, url="http://me:hidden@127.0.0.1:9/v1")
    assert isinstance(error, ModelUnavailableError)
    assert error.message.startswith("the model small cannot be reached: try again")
    assert (line["server"], line["error"]) == ("http://127.0.0.1:9/v1", "it cannot be reached")
    assert "check that it runs" in line["advice"]
    assert "hidden" not in str(line)


async def test_silence_before_an_answer_is_bounded(wire: Any) -> None:
    wire.server.says("Late.", delay_s=0.5)
    error = await failure(wire, timeout_s=0.05)
    assert isinstance(error, ModelUnavailableError)
    assert "in time" in error.message


async def test_silence_in_the_middle_of_an_answer_is_bounded(wire: Any) -> None:
    wire.server.replies_with(wire.half(), is_open=True)
    error = await failure(wire, timeout_s=0.3)
    assert "in time" in error.message
    await asyncio.wait_for(wire.server.left.wait(), 5)


async def test_a_server_that_only_shows_that_it_lives_is_given_up_as_well(wire: Any) -> None:
    wire.server.replies_with(wire.half(), refrain=wire.ping(), pause_s=0.02)
    began = time.monotonic()
    error = await failure(wire, timeout_s=0.4)
    assert isinstance(error, ModelUnavailableError)
    assert "in time" in error.message
    assert time.monotonic() - began < 20


async def test_a_listener_that_fails_is_not_taken_for_a_failing_server(wire: Any) -> None:
    wire.server.replies_with(wire.half(), is_open=True)
    for raised in (ValueError("full"), TimeoutError("full")):
        wire.server.left.clear()

        def refuse(_: str, error: Exception = raised) -> None:
            raise error

        async with model_of(wire) as model:
            with pytest.raises(type(raised), match="full"):
                await model.answer(QUESTION, refuse)
        await asyncio.wait_for(wire.server.left.wait(), 5)


@pytest.mark.parametrize("is_speaking", [True, False])
async def test_a_cancelled_call_closes_its_connection(wire: Any, *, is_speaking: bool) -> None:
    wire.server.replies_with(wire.half() if is_speaking else b"", is_open=True)
    heard = asyncio.Event()
    async with model_of(wire) as model:
        call = asyncio.create_task(model.answer(QUESTION, lambda _: heard.set()))
        await asyncio.wait_for((heard if is_speaking else wire.server.asked).wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(wire.server.left.wait(), 5)


async def test_an_answer_without_end_is_refused(wire: Any) -> None:
    long = wire.half().replace(b"Half", b"words " * 10_000)
    wire.server.replies_with(wire.half(), refrain=long)
    error = await failure(wire)
    assert isinstance(error, ResultTooLargeError)
    assert "16 MiB" in error.message
    assert wire.server.sent < 2 * MOST_BYTES


async def test_a_line_without_end_is_refused(wire: Any) -> None:
    wire.server.replies_with(b"data: ", refrain=b"x" * 2**18)
    assert isinstance(await failure(wire), ResultTooLargeError)


async def test_an_error_without_end_is_refused(wire: Any) -> None:
    wire.server.replies_with(b"{", status=500, refrain=b" " * 2**18)
    assert isinstance(await failure(wire), ResultTooLargeError)


async def test_a_compressed_answer_is_refused_for_it_has_no_bound(wire: Any) -> None:
    wire.server.replies_with(wire.half(), headers={"content-encoding": "gzip"})
    error = await failure(wire)
    assert isinstance(error, ModelUnavailableError)
    assert "compressed" in error.message


async def test_an_answer_asks_for_so_many_calls_at_most(wire: Any) -> None:
    wire.many_calls(MOST_CALLS)
    answer, _ = await ask(wire)
    assert len(answer.calls) == MOST_CALLS
    wire.server.replies.clear()
    wire.many_calls(MOST_CALLS + 1)
    assert isinstance(await failure(wire), ResultTooLargeError)


async def test_a_stream_with_any_bytes_changed_is_an_answer_or_an_error_of_ours(wire: Any) -> None:
    wire.server.says("Valkey is ", "a store.", usage=wire.usage(1, 2, 3))
    wire.server.calls(("a1", "docs__search", ('{"query": ', '"x"}')))
    bodies = [reply.body for reply in wire.server.replies]
    chance = random.Random(20261121)
    tokens = [b"null", b"[]", b"{}", b'"', b"\n\n", b"\xff", b"7", b"[[", b"-1e999", b"\\ud800", b""]
    outcomes = set()
    async with model_of(wire, timeout_s=20) as model:
        for _ in range(150):
            body = bytearray(chance.choice(bodies))
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(body))
                body[at : at + chance.randint(0, 12)] = chance.choice(tokens)
            wire.server.replies = []
            wire.server.replies_with(bytes(body))
            try:
                answer = await model.answer(QUESTION, lambda _: None)
                outcomes.add(type(answer))
                assert all(isinstance(call.arguments, dict) for call in answer.calls)
                assert all(isinstance(one, str) for call in answer.calls for one in (call.call_id, call.tool))
            except MeshError as error:
                outcomes.add(type(error))
    assert {Answer, ModelUnavailableError} <= outcomes


async def test_a_key_is_in_no_log_no_error_and_no_repr(wire: Any, caplog: pytest.LogCaptureFixture) -> None:
    wire.server.fails(500, f"your key {KEY} and {KEY.upper()}")
    wire.server.says("Here.")
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        async with model_of(wire) as model:
            with pytest.raises(MeshError) as caught:
                await model.answer(QUESTION, lambda _: None)
            await model.answer(QUESTION, lambda _: None)
            shown = repr(model) + str(model) + repr(caught.value) + str(caught.value.to_status())
    assert KEY in wire.server.headers[0]["authorization"]
    assert lines[0]["error"].startswith("it failed, status 500")
    for text in (caplog.text, str(lines), *(repr(record.__dict__) for record in caplog.records), shown):
        assert "planted" not in text.lower()


async def test_a_server_without_keys_is_asked_without_one(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wire.variable, KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    wire.server.says("Here.")
    model = wire.model_class("small", wire.server.url, "")
    assert (await model.answer(QUESTION, lambda _: None)).text == "Here."
    await model.close()
    assert "planted" not in str(wire.server.headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_reached_past_a_proxy(wire: Any, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    wire.server.says("Here.")
    assert (await ask(wire, url=wire.server.url.replace("127.0.0.1", host)))[0].text == "Here."


@pytest.mark.parametrize(("host", "is_direct"), [("[::1]", True), ("127.9.9.9", True), ("example.com", False)])
async def test_only_loopback_goes_past_a_proxy(
    wire: Any, monkeypatch: pytest.MonkeyPatch, host: str, *, is_direct: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with model_of(wire, url=f"http://{host}:8080") as model:
        client = model._client._client
        transport = client._transport_for_url(httpx2.URL(f"http://{host}:8080/v1"))
        assert (transport is client._transport) == is_direct


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://host/v1", "http://", "http://[", "http://host:port/v1", "http://a\nb"]
)
def test_a_base_url_that_is_none_is_a_setup_error(wire: Any, url: str) -> None:
    with pytest.raises(SetupError, match="http://HOST:PORT"):
        wire.model_class("small", url, KEY)


@pytest.mark.parametrize("key", ["sk planted", "sk-planted\n", "schlüssel-planted", "planted" * 9_999])
def test_a_key_that_no_header_can_hold_is_a_setup_error(wire: Any, key: str) -> None:
    with pytest.raises(SetupError, match=wire.variable) as caught:
        wire.model_class("small", "http://127.0.0.1:9", key)
    assert "planted" not in caught.value.message
