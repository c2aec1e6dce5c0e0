"""The command around the scenarios: what is played, what is printed, how it exits."""

import json

import pytest
from typer.testing import CliRunner

from meshwright.cli.chaos import catalog, command
from meshwright.cli.chaos.scenario import Row, Scenario
from meshwright.cli.main import app


async def keeps(setting):
    setting.tell(f"seed {setting.seed}, full {setting.is_full}, folder there {setting.folder.is_dir()}")
    return Row(f"{setting.size(2, 20)} of it", {"lost": "0"})


async def breaks(setting):
    row = Row("one of it")
    row.check(False, "something was lost")
    return row


async def fails(setting):
    raise OSError("no mesh\nat all")


async def skips(setting):
    return Row("not played", skipped="there is no compiler")


@pytest.fixture
def play(monkeypatch):
    """Plays scenarios of this file: `play("keeps", "--full")`."""
    own = [Scenario(play.__name__, f"it {play.__name__}", play) for play in (keeps, breaks, fails, skips)]
    monkeypatch.setattr(catalog, "SCENARIOS", own)

    def run(*arguments):
        return CliRunner().invoke(app, ["chaos", *arguments])

    monkeypatch.setattr(command.structlog, "configure", lambda **_: None)
    return run


def test_a_kept_promise_exits_with_nothing(play):
    played = play("keeps", "--seed", "7", "-o", "json")
    assert played.exit_code == 0
    (row,) = json.loads(played.stdout)
    assert (row["scenario"], row["verdict"], row["size"], row["figures"]) == ("keeps", "kept", "2 of it", {"lost": "0"})
    assert "seed 7" in played.stderr
    assert "folder there True" in played.stderr


def test_the_full_size_is_asked_for(play):
    assert json.loads(play("keeps", "--full", "-o", "json").stdout)[0]["size"] == "20 of it"


def test_a_broken_promise_exits_with_one_and_says_which(play):
    played = play("keeps", "breaks")
    assert played.exit_code == 1
    assert "BROKEN: something was lost" in played.stdout


def test_a_scenario_that_cannot_be_played_has_shown_nothing(play):
    played = play("fails", "keeps", "-o", "jsonl")
    rows = [json.loads(line) for line in played.stdout.splitlines()]
    assert played.exit_code == 1
    assert [row["verdict"] for row in rows] == ["BROKEN", "kept"]
    assert rows[0]["broken"] == ["it could not be played: OSError: no mesh at all"]


def test_a_scenario_that_cannot_be_played_here_says_why_and_breaks_nothing(play):
    played = play("skips")
    assert played.exit_code == 0
    assert "skipped: there is no compiler" in played.stdout


def test_an_unknown_scenario_is_named_with_those_there_are(play):
    played = play("flood")
    assert "there is no scenario 'flood': there are keeps, breaks, fails, skips" in str(played.exception)


def test_an_unknown_mutant_is_named_with_those_there_are(play):
    assert "there is no mutant 'lazy': there are no-fence" in str(play("keeps", "--mutant", "lazy").exception)


def test_a_named_folder_is_kept(play, tmp_path):
    play("keeps", "--folder", str(tmp_path / "kept"))
    assert (tmp_path / "kept" / "keeps").is_dir()


def test_a_folder_that_is_there_is_refused(play, tmp_path):
    assert "choose a new one" in str(play("keeps", "--folder", str(tmp_path)).exception)
