"""The commands as a list: known by their outlines, imported one by one."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from meshwright.cli.commands import PLACES, loaded
from meshwright.cli.main import app

HEAVY = (
    "grpc",
    "redis",
    "pydantic",
    "structlog",
    "cryptography",
    "opentelemetry",
    "prometheus_client",
    "meshwright.agents",
    "meshwright.registry",
)


def imported(code):
    """Returns which of the heavy packages a fresh process has imported after some code."""
    code = f"import sys; {code}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    call = (
        "from typer.testing import CliRunner; from meshwright.cli.main import app; CliRunner().invoke(app, ['--help'])"
    )
    assert imported(call) == set()


@pytest.mark.parametrize("name", ["agent", "run", "task"])
def test_talking_to_a_mesh_imports_none(name):
    call = f"from meshwright.cli.commands import loaded; loaded({name!r})"
    servers = {"redis", "cryptography", "prometheus_client", "meshwright.agents", "meshwright.registry"}
    assert imported(call).isdisjoint(servers)


@pytest.mark.parametrize("name", PLACES)
def test_the_list_says_of_a_command_what_it_says_of_itself(name):
    told = " ".join((loaded(name).help or "").split("\n\n")[0].split())
    assert told == PLACES[name].help


def test_a_command_that_is_misspelled_is_guessed():
    result = CliRunner().invoke(app, ["tsk"])
    assert result.exit_code == 2
    assert "'task'" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run Hi --max-steps 99", "less than or equal to 25"),
        ("run Hi --max-tool-calls 1001", "less than or equal to 1000"),
        ("run Hi --token-budget 5", "512..32768"),
        ("run Hi --tool docs.search@1", "docs.search@1' names no tool"),
        ("run Hi --id a/b", "1 to 64 letters"),
        ("task submit Hi --session a/b", "1 to 64 letters"),
        ("task list -o yaml", "'-o': 'yaml' is not one of 'table', 'json', 'jsonl'"),
        ("cost --by task", "'task' is not one of 'agent', 'model', 'tool', 'type', 'tenant', 'session', 'user'"),
        ("cost --nope", "No such option: --nope"),
        ("--nope cost", "No such option: --nope"),
        ("cost --day yesterday", "YYYY-MM-DD"),
        ("cost --day 2026-01-31 --to 2026-01-30", "0 to 39"),
        ("task resolve t1 answer", "an answer is needed"),
        ("task resolve t1 edit 7", "a JSON object"),
        ("task resolve t1 raise_budget", "--token-budget"),
    ],
)
def test_what_is_wrong_without_a_mesh_is_told_without_one(words, said):
    result = CliRunner().invoke(app, words.split(), env={"COLUMNS": "20"})
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(" --help)\n")
    assert result.stderr.count("\n") == 1


def test_what_a_terminal_would_obey_is_spelled_out():
    result = CliRunner().invoke(app, ["cost", "--by", "\x1b[2Jtask\nagent"])
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", PLACES)
def test_help_is_for_those_who_type(name):
    todo = [loaded(name)]
    for command in todo:
        todo += getattr(command, "commands", {}).values()
        assert not re.search("(Args|Raises|Returns):", command.help or ""), command.name
