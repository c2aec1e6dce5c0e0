"""Replies played from a file."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshwright.agents.models.model import Answer, Call, Message, Prompt, Usage
from meshwright.agents.models.scripted import ScriptedModel
from meshwright.core.errors import (
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    SetupError,
)

SCRIPT = """
agents:
  planner:
    - tool_calls:
        - {name: docs.search, arguments: {query: Valkey}}
        - {name: clock.now}
      usage: {input_tokens: 10, output_tokens: 3}
    - text: It is a store.
  default:
    - text: I am anybody.
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "demo.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


async def ask(path: Path, agent: str = "planner", turn: int = 0) -> Answer:
    prompt = Prompt(agent, "Be brief.", (Message("user", "What is Valkey?"),), turn=turn)
    return await ScriptedModel(path).answer(prompt, lambda _: None)


async def test_the_nth_call_of_a_task_gets_the_nth_reply_and_the_last_one_repeats(
    script: Callable[[str], Path],
) -> None:
    path = script(SCRIPT)
    first, second, third = [await ask(path, turn=turn) for turn in range(3)]
    assert first.calls == (
        Call("call_0_0", "docs.search", {"query": "Valkey"}),
        Call("call_0_1", "clock.now", {}),
    )
    assert (first.text, first.stop_reason, first.usage) == ("", "tool_calls", Usage(10, 3))
    assert (second.text, second.calls, second.stop_reason) == ("It is a store.", (), "stop")
    assert third.text == second.text
    assert (first.provider, first.model) == ("scripted", "demo.yaml")


async def test_an_agent_without_an_entry_gets_the_default(script: Callable[[str], Path]) -> None:
    assert (await ask(script(SCRIPT), "other")).text == "I am anybody."


async def test_without_a_default_an_unknown_agent_is_refused(script: Callable[[str], Path]) -> None:
    with pytest.raises(ModelRejectedError, match=r"demo\.yaml has no replies for other"):
        await ask(script("agents: {planner: [{text: Hi}]}"), "other")


async def test_usage_is_estimated_when_the_script_gives_none(script: Callable[[str], Path]) -> None:
    usage = (await ask(script(SCRIPT), turn=1)).usage
    assert usage.output_tokens == 4
    assert usage.input_tokens > 4


async def test_text_is_streamed_in_pieces_that_add_up_to_it(script: Callable[[str], Path]) -> None:
    path = script('agents: {default: [{text: "  It is\\n\\na store. "}]}')
    pieces: list[str] = []
    answer = await ScriptedModel(path).answer(Prompt("a", "", ()), pieces.append)
    assert len(pieces) > 3
    assert "".join(pieces) == answer.text == "  It is\n\na store. "


async def test_latency_is_waited_for(script: Callable[[str], Path]) -> None:
    path = script("agents: {default: [{text: Hi, latency_ms: 60}]}")
    began = time.monotonic()
    await ask(path)
    assert 0.06 <= time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("code", "expected"),
    [("UNAVAILABLE", ModelUnavailableError), ("RESOURCE_EXHAUSTED", RateLimitedError), ("DENIED", ModelRejectedError)],
)
async def test_a_scripted_failure_is_raised_after_its_text(
    script: Callable[[str], Path], code: str, expected: type[MeshError]
) -> None:
    path = script(f"agents: {{default: [{{text: Half, error: {{code: {code}, message: broken}}}}]}}")
    pieces: list[str] = []
    with pytest.raises(MeshError, match="broken") as caught:
        await ScriptedModel(path).answer(Prompt("a", "", ()), pieces.append)
    assert type(caught.value) is expected
    assert pieces == ["Half"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "the file"),
        ("agents: {}\nmore: 1", "more"),
        ("agents: {planner: []}", r"agents\.planner"),
        ("agents: {planner: [{}]}", r"agents\.planner\.0.*needs text, tool_calls or error"),
        ("agents: {planner: [{usage: {input_tokens: 1}}]}", "needs text, tool_calls or error"),
        ("agents: {planner: [{text: Hi, latency_ms: -1}]}", r"agents\.planner\.0\.latency_ms"),
        ("agents: {planner: [{tool_calls: [{arguments: {}}]}]}", r"tool_calls\.0\.name"),
        ("agents:\n  planner: [", "line 2"),
        ("agents: \x07", "no YAML"),
    ],
)
def test_a_wrong_script_is_a_setup_error_of_one_line_that_names_the_place(
    script: Callable[[str], Path], text: str, place: str
) -> None:
    with pytest.raises(SetupError, match=place) as caught:
        ScriptedModel(script(text))
    assert "demo.yaml" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.yaml: No such file"):
        ScriptedModel(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SetupError, match="no UTF-8"):
        ScriptedModel(tmp_path / "bytes.yaml")
