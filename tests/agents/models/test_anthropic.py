"""What is peculiar to Anthropic's Messages API; what all providers do alike is in `test_conformance.py`."""

from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from meshwright.agents.models.anthropic import AnthropicModel
from meshwright.agents.models.model import Answer, Call, Message, Prompt, ToolSpec, Usage
from meshwright.core.errors import ModelRejectedError

CACHED = {"type": "ephemeral"}
SEARCH = ToolSpec("docs.search", "Finds passages.", {"type": "object", "properties": {"query": {"type": "string"}}})
READ = ToolSpec("docs.read", "Reads one.", {"type": "object"})
QUESTION = Message("user", "Why?")
CALLED = Message(
    "assistant", "Let me see.", (Call("c1", "docs.search", {"query": "größe"}), Call("c2", "docs.read", {}))
)
OUTCOMES = (Message("tool", '{"hits": []}', call_id="c1"), Message("tool", " ", call_id="c2"))


async def ask(server: Any, prompt: Prompt) -> Answer:
    if not server.replies:
        server.says("Done.")
    model = AnthropicModel("small", server.url, "sk-1")
    try:
        return await model.answer(prompt, lambda _: None)
    finally:
        await model.close()


async def request_of(server: Any, prompt: Prompt) -> dict[str, Any]:
    await ask(server, prompt)
    return server.requests[-1]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


async def test_instructions_and_tools_are_marked_for_the_cache(anthropic_server: Any) -> None:
    body = await request_of(anthropic_server, Prompt("a", "Be brief.", (QUESTION,), (SEARCH, READ), 1, 77))
    assert body["system"] == [{**text("Be brief."), "cache_control": CACHED}]
    assert [tool["name"] for tool in body["tools"]] == ["docs__search", "docs__read"]
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, CACHED]
    assert body["tools"][0]["input_schema"] == SEARCH.parameters
    assert "tool_choice" not in body
    assert "output_config" not in body


async def test_outcomes_of_parallel_calls_and_what_follows_them_are_one_message(anthropic_server: Any) -> None:
    messages = (QUESTION, CALLED, *OUTCOMES, Message("user", "Hurry."))
    body = await request_of(anthropic_server, Prompt("a", "", messages, (SEARCH, READ)))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    asked, said, told = (message["content"] for message in body["messages"])
    assert asked == [text("Why?")]
    assert said == [
        text("Let me see."),
        {"type": "tool_use", "id": "c1", "name": "docs__search", "input": {"query": "größe"}},
        {"type": "tool_use", "id": "c2", "name": "docs__read", "input": {}},
    ]
    assert told == [
        {"type": "tool_result", "tool_use_id": "c1", "content": [text('{"hits": []}')]},
        {"type": "tool_result", "tool_use_id": "c2", "content": []},
        text("Hurry."),
    ]
    assert "system" not in body


async def test_blank_words_of_earlier_turns_are_left_out(anthropic_server: Any) -> None:
    messages = (QUESTION, Message("assistant", " \n"), Message("user", "And now?"))
    body = await request_of(anthropic_server, Prompt("a", "", messages))
    assert body["messages"] == [{"role": "user", "content": [text("Why?"), text("And now?")]}]


async def test_tools_of_earlier_calls_are_known_and_off_where_none_is_offered(anthropic_server: Any) -> None:
    body = await request_of(anthropic_server, Prompt("a", "", (QUESTION, CALLED, *OUTCOMES)))
    assert [tool["name"] for tool in body["tools"]] == ["docs__search", "docs__read"]
    assert body["tool_choice"] == {"type": "none"}
    assert "tools" not in await request_of(anthropic_server, Prompt("a", "", (QUESTION,)))


async def test_an_answers_schema_is_enforced_where_all_of_it_can_be(anthropic_server: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    body = await request_of(anthropic_server, Prompt("a", "", (QUESTION,), output_schema=schema))
    told = body["output_config"]["format"]
    assert told["type"] == "json_schema"
    assert told["schema"]["additionalProperties"] is False
    assert told["schema"]["required"] == ["n"]
    assert "minimum: 1" in told["schema"]["properties"]["n"]["description"]
    assert schema["properties"]["n"] == {"type": "integer", "minimum": 1}


async def test_an_answers_schema_is_told_in_words_where_enforcing_it_would_change_it(anthropic_server: Any) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "number"}}
    body = await request_of(anthropic_server, Prompt("a", "Be brief.", (QUESTION,), output_schema=schema))
    assert "output_config" not in body
    assert body["system"][0]["text"] == "Be brief."
    assert '"additionalProperties": {"type": "number"}' in body["system"][1]["text"]


async def test_words_before_calls_are_a_side_remark(anthropic_server: Any) -> None:
    server = anthropic_server
    call = server.call(1, "a1", "docs__search", ['{"query": "x"}'])
    server.streams(server.begins(), *server.text("Let me", " see."), *call, *server.ends("tool_use"))
    answer = await ask(server, Prompt("a", "", (QUESTION,), (SEARCH,)))
    assert (answer.text, answer.stop_reason) == ("Let me see.", "tool_calls")
    assert answer.calls == (Call("a1", "docs.search", {"query": "x"}),)


async def test_thoughts_are_no_words(anthropic_server: Any) -> None:
    server = anthropic_server
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}
    server.streams(server.begins(), block, delta, *server.text("Yes.", index=1), *server.ends())
    assert (await ask(server, Prompt("a", "", (QUESTION,)))).text == "Yes."


async def test_a_call_that_arrives_whole_is_read_too(anthropic_server: Any) -> None:
    server = anthropic_server
    block = {"type": "tool_use", "id": "a1", "name": "docs__search", "input": {"query": "x"}}
    whole = {"type": "content_block_start", "index": 0, "content_block": block}
    server.streams(server.begins(), whole, *server.ends("tool_use"))
    answer = await ask(server, Prompt("a", "", (QUESTION,), (SEARCH,)))
    assert answer.calls == (Call("a1", "docs.search", {"query": "x"}),)


async def test_counts_grow_and_tokens_written_to_the_cache_stand_apart(anthropic_server: Any) -> None:
    server = anthropic_server
    begun = {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3}
    server.streams(server.begins(begun), *server.text("Hi."), *server.ends(usage={"output_tokens": 5}))
    answer = await ask(server, Prompt("a", "", (QUESTION,)))
    assert answer.usage == Usage(9, 5, cache_read_tokens=4, cache_write_tokens=3)


async def test_a_balance_that_is_used_up_is_a_refusal(anthropic_server: Any) -> None:
    anthropic_server.fails(402, "pay", kind="billing_error")
    with structlog.testing.capture_logs() as lines, pytest.raises(ModelRejectedError):
        await ask(anthropic_server, Prompt("a", "", (QUESTION,)))
    assert "quota is used up" in lines[0]["error"]


async def test_no_trace_leaves_the_mesh(anthropic_server: Any) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("task"):
        await ask(anthropic_server, Prompt("a", "", (QUESTION,)))
    assert "traceparent" not in anthropic_server.headers[0]
