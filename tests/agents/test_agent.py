"""An agent as its author writes it, and how it is found."""

import pytest

from meshwright.agents import Agent
from meshwright.agents.agent import load
from meshwright.core.errors import SetupError
from meshwright.registry import tool


@tool(effect="pure", version="2.1.0")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def test_tools_of_its_own_and_of_others_become_pins_and_selectors():
    agent = Agent("worker", "Work.", tools=[add, "docs.search@^1"])
    assert agent.local_tools == (add,)
    assert agent.selectors == ("add@2.1.0", "docs.search@^1")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "Worker"}, "agent name 'Worker' must be"),
        ({"version": "1"}, "no semantic version"),
        ({"tools": [print]}, "decorate the function with @tool"),
    ],
)
def test_a_mistake_is_told_in_one_line(fields, problem):
    with pytest.raises(SetupError, match=problem) as refused:
        Agent(**({"name": "worker", "instructions": "Work."} | fields))
    assert "\n" not in refused.value.message


class TestLoad:
    def test_an_agent_is_found_in_a_file_or_a_module(self, tmp_path):
        file = tmp_path / "mine_to_load.py"
        file.write_text("from meshwright.agents import Agent\nhello = Agent('hello', 'Say hello.')\n")
        assert load(f"{file}:hello").name == "hello"
        assert load("mine_to_load:hello").name == "hello"

    @pytest.mark.parametrize(
        ("text", "spec", "problem"),
        [
            ("", "{file}", "names no agent"),
            ("", "{file}:missing", "has no agent 'missing': agents in it are none"),
            ("import nothing_of_this_name", "{file}:a", "cannot be imported: ModuleNotFoundError"),
            ("def", "{file}:a", "invalid syntax"),
            ("1 / 0", "{file}:a", "ZeroDivisionError"),
            ("", "/nowhere.py:a", "is not a file"),
        ],
    )
    def test_what_cannot_be_loaded_is_told_in_one_line(self, tmp_path, text, spec, problem):
        file = tmp_path / "broken_one.py"
        file.write_text(text)
        with pytest.raises(SetupError, match=problem) as refused:
            load(spec.format(file=file))
        assert "\n" not in refused.value.message
