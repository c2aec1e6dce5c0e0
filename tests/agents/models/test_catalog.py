"""Models by their spelling on a command line."""

import time
from pathlib import Path
from typing import Any

import pytest

from meshwright.agents.models.catalog import model_from
from meshwright.agents.models.model import Message, Prompt
from meshwright.agents.models.openai import OpenAIModel
from meshwright.core.errors import SetupError


def test_the_offline_model_needs_nothing() -> None:
    model = model_from("offline")
    assert (model.provider, model.name) == ("offline", "offline")


def test_a_script_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a b.yaml"
    path.write_text("agents: {default: [{text: Hi}]}", encoding="utf-8")
    model = model_from(f"scripted:{path}")
    assert (model.provider, model.name) == ("scripted", "a b.yaml")


@pytest.mark.parametrize("name", ["llama3:8b", "org/model-7b", "@cf/meta/llama-3", "m@2024"])
async def test_a_models_name_may_hold_colons_slashes_and_at_signs(openai_server: Any, name: str) -> None:
    openai_server.says("Here.")
    model = model_from(f"openai:{name}@{openai_server.url}")
    assert isinstance(model, OpenAIModel)
    assert (model.provider, model.name) == ("openai", name)
    await model.answer(Prompt("a", "", (Message("user", "Hi"),)), lambda _: None)
    assert openai_server.requests[0]["model"] == name
    await model.close()


async def test_without_a_base_url_it_is_openais_own_service() -> None:
    model = model_from("openai:gpt-x", api_key="sk-1")
    assert isinstance(model, OpenAIModel)
    assert str(model._client.base_url) == "https://api.openai.com/v1/"
    await model.close()


def test_openais_own_service_needs_a_key() -> None:
    with pytest.raises(SetupError, match="set OPENAI_API_KEY"):
        model_from("openai:gpt-x")


def test_a_base_url_needs_its_scheme() -> None:
    with pytest.raises(SetupError, match="neither http:// nor https://"):
        model_from("openai:llama3@localhost:11434/v1", api_key="sk-1")


@pytest.mark.parametrize("spec", ["", "gpt-x", "offline:x", "scripted:", "openai:", "OFFLINE"])
def test_an_unknown_spelling_names_the_known_ones(spec: str) -> None:
    with pytest.raises(SetupError, match=r"offline\[:SECONDS\], scripted:FILE, openai:MODEL@BASE_URL"):
        model_from(spec)


async def test_the_offline_model_takes_its_time_when_asked_to() -> None:
    model = model_from("offline:0.1")
    started = time.monotonic()
    answer = await model.answer(Prompt("any", "", (Message("user", "What is 1 + 1?"),)), lambda _: None)
    assert time.monotonic() - started >= 0.1
    assert "2" in answer.text
