"""Models by their spelling on a command line."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshwright.agents.models.anthropic import AnthropicModel
from meshwright.agents.models.catalog import model_from
from meshwright.agents.models.model import Message, Prompt
from meshwright.agents.models.offline import OfflineModel
from meshwright.agents.models.openai import OpenAIModel
from meshwright.core.errors import SetupError


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(f"{variable}_FILE", raising=False)


def test_the_offline_model_needs_nothing() -> None:
    model = model_from("offline")
    assert (model.provider, model.name) == ("offline", "offline")


def test_a_script_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a b.yaml"
    path.write_text("agents: {default: [{text: Hi}]}", encoding="utf-8")
    model = model_from(f"scripted:{path}")
    assert (model.provider, model.name) == ("scripted", "a b.yaml")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("name", ["llama3:8b", "org/model-7b", "@cf/meta/llama-3", "m@2024"])
async def test_a_models_name_may_hold_colons_slashes_and_at_signs(
    openai_server: Any, anthropic_server: Any, kind: str, name: str
) -> None:
    server = openai_server if kind == "openai" else anthropic_server
    server.says("Here.")
    model = model_from(f"{kind}:{name}@{server.url}")
    assert (model.provider, model.name) == (kind, name)
    await model.answer(Prompt("a", "", (Message("user", "Hi"),)), lambda _: None)
    assert server.requests[0]["model"] == name
    await model.close()


@pytest.mark.parametrize(
    ("kind", "url"), [("openai", "https://api.openai.com/v1/"), ("anthropic", "https://api.anthropic.com")]
)
async def test_without_a_base_url_it_is_the_providers_own_service(
    monkeypatch: pytest.MonkeyPatch, kind: str, url: str
) -> None:
    monkeypatch.setenv(f"{kind.upper()}_API_KEY", "sk-1")
    model = model_from(f"{kind}:small", timeout_s=7)
    assert isinstance(model, OpenAIModel | AnthropicModel)
    assert model.provider == kind
    assert str(model._client.base_url) == url
    assert model._endpoint._timeout_s == 7
    await model.close()


async def test_a_key_may_stand_in_a_file(
    anthropic_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sk-from-a-file\n", encoding="utf-8")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    anthropic_server.says("Here.")
    model = model_from(f"anthropic:small@{anthropic_server.url}")
    await model.answer(Prompt("a", "", (Message("user", "Hi"),)), lambda _: None)
    assert anthropic_server.headers[0]["authorization"] == "Bearer sk-from-a-file"
    await model.close()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_providers_own_service_needs_a_key(kind: str) -> None:
    with pytest.raises(SetupError, match=f"set {kind.upper()}_API_KEY"):
        model_from(f"{kind}:small")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_base_url_needs_its_scheme(kind: str) -> None:
    with pytest.raises(SetupError, match="neither http:// nor https://"):
        model_from(f"{kind}:llama3@localhost:11434/v1")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "gpt-x",
        "offline:x",
        "offline:61",
        "offline:60.5",
        "offline:-1",
        "scripted:",
        "openai:",
        "anthropic:",
        "OFFLINE",
    ],
)
def test_an_unknown_spelling_names_the_known_ones(spec: str) -> None:
    with pytest.raises(
        SetupError, match=r"offline\[:SECONDS\] \(up to 60\), scripted:FILE, openai:MODEL.*, anthropic:MODEL"
    ):
        model_from(spec)


@pytest.mark.parametrize("spec", ["openai:m@me:hidden@host/v1", "opnai:m@http://me:hidden@host/v1"])
def test_credentials_of_a_wrong_spelling_are_not_repeated(spec: str) -> None:
    with pytest.raises(SetupError, match="host/v1") as caught:
        model_from(spec)
    assert "hidden" not in caught.value.message


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.delitem(sys.modules, f"meshwright.agents.models.{kind}")
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(SetupError, match=rf"package {kind} is missing: pip install 'meshwright\[llm\]'"):
        model_from(f"{kind}:small@http://127.0.0.1:9/v1")


def test_no_sdk_is_imported_before_its_model_is_named() -> None:
    code = (
        "import sys, meshwright.agents.serving, meshwright.agents.models.catalog as catalog\n"
        "catalog.model_from('offline')\n"
        "sys.exit(str({'openai', 'anthropic', 'httpx2'} & set(sys.modules) or ''))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("seconds", ["", "0", "0.25", "9.5", "20", "59.9", "60"])
def test_the_offline_model_takes_up_to_a_minute(seconds: str) -> None:
    assert isinstance(model_from(f"offline:{seconds}"), OfflineModel)


async def test_the_offline_model_takes_its_time_when_asked_to() -> None:
    model = model_from("offline:0.1")
    started = time.monotonic()
    answer = await model.answer(Prompt("any", "", (Message("user", "What is 1 + 1?"),)), lambda _: None)
    assert time.monotonic() - started >= 0.1
    assert "2" in answer.text
