"""What a user's agent is called before its process has told: by what its file says, which is read and never run."""

import pytest

from meshwright.cli.agent_spec import AgentSpec, declared_name, own_agents, worker_of

SOURCE = """
from meshwright.agents import Agent
raise SystemExit("this file was run")
boss = Agent("the-boss", "Lead.")
helper = Agent(name="helper", instructions="Help.")
typed: Agent = Agent("typed", "Help.")
made = [Agent("x", "y")][0]
wrong = Agent("../../etc", "Break out.")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "crew.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("variable", "name"),
    [("boss", "the-boss"), ("helper", "helper"), ("typed", "typed"), ("made", ""), ("wrong", ""), ("nobody", "")],
)
def test_a_name_is_read_where_the_file_says_one(file, variable, name):
    assert declared_name(f"{file}:{variable}") == name


def test_an_agent_of_a_module_is_found_below_this_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert declared_name("crew:boss") == "the-boss"


@pytest.mark.parametrize("text", ["def", "x = " + "(" * 5_000, "\0"])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert declared_name(f"{path}:agent") == ""
    assert declared_name(f"{tmp_path / 'absent.py'}:agent") == ""


def test_logs_are_called_like_their_agents_and_processes_by_file_and_variable(file):
    boss, made = own_agents([f"{file}:boss", f"{file}:made"])
    assert boss == AgentSpec("crew-boss", f"{file}:boss", "the-boss")
    assert (made.name, made.log) == ("crew-made-1", "crew-made-1")
    assert worker_of(boss, 2)[::2] == ("crew-boss-worker-2", "the-boss-worker-2")
