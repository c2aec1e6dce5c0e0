"""Settings: environment, flags, and errors that name the variable."""

import os
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from meshwright.core.errors import SetupError
from meshwright.core.settings import PREFIX, Settings, child_environment, data_home, provider_key, runtime_home


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def test_an_empty_environment_gives_the_defaults():
    assert Settings.load() == Settings()
    assert Settings().host == "127.0.0.1"
    assert not Settings().insecure


def test_the_environment_is_read_by_the_fields_name(monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_PORT", "8123")
    monkeypatch.setenv("MESHWRIGHT_REFLECTION", "true")
    monkeypatch.setenv("MESHWRIGHT_DRAIN_S", "0.5")
    settings = Settings.load()
    assert (settings.port, settings.reflection, settings.drain_s) == (8123, True, 0.5)


def test_what_is_chosen_by_flag_wins_and_none_is_no_choice(monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_PORT", "8123")
    monkeypatch.setenv("MESHWRIGHT_HOST", "127.0.0.2")
    settings = Settings.load(port=9000, host=None)
    assert (settings.port, settings.host) == (9000, "127.0.0.2")


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "many"), ("PORT", "70000"), ("TRACING", "perhaps"), ("DRAIN_S", "-1")]
)
def test_a_bad_value_names_its_variable_in_one_line(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SetupError) as caught:
        Settings.load()
    assert caught.value.message.startswith(f"{PREFIX}{name}={value!r}: ")
    assert "\n" not in caught.value.message


def test_an_error_in_one_variable_does_not_show_the_others(monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_STORE_URL", "redis://:hunter2@store:6379/0")
    monkeypatch.setenv("MESHWRIGHT_PORT", "x")
    with pytest.raises(SetupError) as caught:
        Settings.load()
    assert "hunter2" not in caught.value.message


def test_a_flag_that_no_field_takes_is_refused():
    with pytest.raises(SetupError, match="MESHWRIGHT_COLOUR"):
        Settings.load(colour="red")


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_a_service_adds_its_own_fields(monkeypatch):
    class Own(Settings):
        depth: int = Field(default=3, description="How deep")

    monkeypatch.setenv("MESHWRIGHT_DEPTH", "4")
    assert Own.load().depth == 4
    assert Own.load().port == 0


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_is_described_and_has_a_default(name):
    field = Settings.model_fields[name]
    assert field.description
    assert not field.is_required()


def test_settings_travel_to_a_child_process_by_its_environment(monkeypatch):
    settings = Settings(port=77, reflection=True, drain_s=0.25, store_url="unix:///tmp/a b?password=x%20y")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_a_child_gets_the_given_settings_in_place_of_inherited_ones(monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_PORT", "1")
    monkeypatch.setenv("MESHWRIGHT_FORGOTTEN", "1")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = child_environment(Settings(port=2))
    assert environment["MESHWRIGHT_PORT"] == "2"
    assert environment["UNRELATED"] == "kept"
    assert "MESHWRIGHT_FORGOTTEN" not in environment


@pytest.mark.parametrize(("chosen", "given"), [(None, "ERROR"), ("INFO", "INFO")])
def test_what_grpc_s_core_says_in_a_child_is_errors_or_what_was_chosen(monkeypatch, chosen, given):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if chosen:
        monkeypatch.setenv("GRPC_VERBOSITY", chosen)
    assert child_environment(Settings())["GRPC_VERBOSITY"] == given


def test_a_providers_key_has_the_name_that_the_provider_uses(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.delenv("OTHER_API_KEY", raising=False)
    assert provider_key("openai") == "sk-1"
    assert provider_key("other") == ""


def test_a_providers_key_may_stand_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("sk-2\n")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    assert provider_key("anthropic") == "sk-2"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    assert provider_key("anthropic") == "sk-2"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-1")
    with pytest.raises(SetupError, match="both ANTHROPIC_API_KEY and ANTHROPIC_API_KEY_FILE") as caught:
        provider_key("anthropic")
    assert "sk-" not in caught.value.message


def test_folders_follow_the_xdg_variables(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/d")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    assert data_home() == Path("/d/meshwright")
    assert runtime_home() == Path("/r")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert data_home() == Path.home() / ".local/share/meshwright"
    assert runtime_home() is None


@pytest.mark.parametrize("value", ["nohost", "host:", "host:0", "host:65536", ":7070", "::1:7070", "http://host:1", ""])
def test_an_address_that_is_none_is_told_with_its_variable(monkeypatch, value):
    monkeypatch.setenv("MESHWRIGHT_REGISTRY", value)
    with pytest.raises(SetupError, match=r"MESHWRIGHT_REGISTRY=.*: must (be host:port|have a port)"):
        Settings.load()


@pytest.mark.parametrize("value", ["registry:7070", "10.0.0.1:1", "[::1]:65535"])
def test_an_address_is_taken(value):
    assert Settings(registry=value).registry == value


@pytest.mark.parametrize("value", ["http://[::1", "http://collector:port", "http://collector:99999"])
def test_an_endpoint_that_is_no_url_is_told(value):
    with pytest.raises(SetupError, match=r"MESHWRIGHT_OTLP_ENDPOINT=.*: must be a URL"):
        Settings.load(otlp_endpoint=value)
