"""What is peculiar to OpenAI-compatible endpoints; what all providers do alike is in `test_conformance.py`."""

import json
from typing import Any

import pytest
import structlog

from meshwright.agents.models.model import Answer, Call, Message, Prompt, ToolSpec
from meshwright.agents.models.openai import OpenAIModel
from meshwright.core.errors import ModelRejectedError

SEARCH = ToolSpec("docs.search", "Finds passages.", {"type": "object", "properties": {"query": {"type": "string"}}})
QUESTION = Prompt("researcher", "Be brief.", (Message("user", "What is Valkey?"),), (SEARCH,))
CLOSED = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


async def ask(url: str, prompt: Prompt = QUESTION) -> Answer:
    model = OpenAIModel("small", url, "sk-1")
    try:
        return await model.answer(prompt, lambda _: None)
    finally:
        await model.close()


def call_piece(index: int | None, arguments: str, call_id: str = "", name: str = "") -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "function": function, **({"id": call_id, "type": "function"} if call_id else {})}


async def test_messages_are_spelled_one_by_one(openai_server: Any) -> None:
    openai_server.says("Done.")
    called = Message("assistant", "", (Call("c1", "docs.search", {"query": "größe"}),))
    outcome = Message("tool", '{"hits": []}', call_id="c1")
    await ask(openai_server.url, Prompt("a", "Be brief.", (Message("user", "Why?"), called, outcome), (SEARCH,), 1, 77))
    (body,) = openai_server.requests
    assert body["stream_options"] == {"include_usage": True}
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    function = body["messages"][2]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("docs__search", {"query": "größe"})
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": '{"hits": []}'}
    assert body["tools"][0]["function"]["name"] == "docs__search"
    assert body["tools"][0]["function"]["parameters"] == SEARCH.parameters
    assert "response_format" not in body


async def test_without_instructions_and_tools_the_request_names_neither(openai_server: Any) -> None:
    openai_server.says("Done.")
    await ask(openai_server.url, Prompt("a", "", (Message("user", "Why?"),)))
    (body,) = openai_server.requests
    assert "tools" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("schema", "strictness"), [(CLOSED, {"strict": True}), ({"type": "object", "minProperties": 1}, {})]
)
async def test_an_answers_schema_is_enforced_where_it_can_be(
    openai_server: Any, schema: dict[str, Any], strictness: dict[str, bool]
) -> None:
    openai_server.says('{"city": "Rome"}')
    await ask(openai_server.url, Prompt("a", "", (Message("user", "Where?"),), output_schema=schema))
    form = {"name": "answer", "schema": schema, **strictness}
    assert openai_server.requests[0]["response_format"] == {"type": "json_schema", "json_schema": form}


async def test_pieces_of_calls_may_arrive_in_turns(openai_server: Any) -> None:
    chunk = openai_server.chunk
    openai_server.streams(
        chunk({"role": "assistant", "tool_calls": [call_piece(0, "", "a1", "docs__search")]}),
        chunk({"tool_calls": [call_piece(0, '{"que')]}),
        chunk({"tool_calls": [call_piece(1, '{"query": "b"}', "b1", "docs__search"), call_piece(0, 'ry": "a"}')]}),
        chunk({}, "tool_calls"),
    )
    answer = await ask(openai_server.url)
    assert answer.calls == (Call("a1", "docs.search", {"query": "a"}), Call("b1", "docs.search", {"query": "b"}))


async def test_calls_that_a_server_numbers_alike_are_told_apart_by_their_ids(openai_server: Any) -> None:
    pieces = [call_piece(0, "{}", "a1", "docs__search"), call_piece(0, "{}", "b1", "docs__read")]
    openai_server.streams(openai_server.chunk({"tool_calls": pieces}, "tool_calls"))
    answer = await ask(openai_server.url)
    assert [(call.call_id, call.tool) for call in answer.calls] == [("a1", "docs.search"), ("b1", "docs.read")]


async def test_a_refusal_is_text(openai_server: Any) -> None:
    openai_server.streams(openai_server.chunk({"refusal": "I cannot."}), openai_server.chunk({}, "stop"))
    assert (await ask(openai_server.url)).text == "I cannot."


async def test_a_used_up_quota_is_a_refusal_although_its_status_is_that_of_a_rate_limit(openai_server: Any) -> None:
    openai_server.fails(429, "pay", code="insufficient_quota")
    with structlog.testing.capture_logs() as lines, pytest.raises(ModelRejectedError):
        await ask(openai_server.url)
    assert "quota is used up" in lines[0]["error"]


async def test_an_error_may_be_a_mere_sentence(openai_server: Any) -> None:
    openai_server.fails_with(404, {"error": "model 'small' not found"})
    with structlog.testing.capture_logs() as lines, pytest.raises(ModelRejectedError):
        await ask(openai_server.url)
    assert lines[0]["error"] == "it has no model small, or the base URL is wrong, status 404"


async def test_openai_itself_gets_the_newer_name_of_the_token_limit() -> None:
    model = OpenAIModel("small", "https://api.openai.com/v1", "sk-1")
    assert model._bound == "max_completion_tokens"
    await model.close()
