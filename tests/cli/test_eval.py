"""`meshwright eval`: what it runs, prints, and exits with."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from meshwright.agents.evals.suite import Verdict
from meshwright.cli.eval import judged_by
from meshwright.cli.eval_report import junit, score, word
from meshwright.cli.main import app
from meshwright.core.errors import SetupError

AGENT = '''
from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="pure", name="desk.double")
def double(number: int) -> int:
    """Doubles a number."""
    print("printed by the tool")
    return 2 * number


agent = Agent("desk", "Double.", tools=[double])
front = Agent("front", "Ask the desk.", delegates=["desk"])
'''
GOOD = {"id": "good", "prompt": "Double the number 21", "checks": {"equals": "42"}}
BAD = {"id": "bad", "prompt": "Double the number 2", "checks": {"equals": "5"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text(AGENT)
    return tmp_path


def cases(folder: Path, *listed: dict, name: str = "evals.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(case) + "\n" for case in listed))
    return folder / name


def run(*words, cwd=None):
    command = [sys.executable, "-m", "meshwright.cli.main", "eval", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False, cwd=cwd)


def test_a_folder_is_run_with_the_set_in_it_and_stdout_holds_verdicts_alone(folder):
    cases(folder, GOOD, BAD)
    ran = run(folder, "-o", "json", "--min", "0.5")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["score"] == 0.5
    good, bad = told["cases"]
    assert (good["id"], good["passed"], good["failures"], good["output"]) == ("good", True, [], "42")
    assert (bad["id"], bad["passed"], bad["failures"]) == ("bad", False, ["is not '5': '4'"])
    assert "✓ desk/good" in ran.stderr
    assert "✗ desk/bad" in ran.stderr
    assert "printed by the tool" in ran.stderr
    assert "1 of 2 passed, 50% have to" in ran.stderr


def test_too_few_that_pass_exit_with_1(folder):
    cases(folder, GOOD, BAD)
    ran = run(f"{folder / 'agent.py'}:agent")
    assert ran.returncode == 1
    assert "is not '5': '4'" in ran.stdout


def test_a_bad_set_exits_with_2_and_names_line_and_field(folder):
    cases(folder, GOOD, {**BAD, "checks": {"matches": ["("]}})
    ran = run(folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "line 2: checks.matches" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody"], "there is no agent 'nobody'"),
        (["--set", "x.jsonl"], "--set belongs to one agent"),
        (["planner", "--set", "nowhere.jsonl"], "there is no set nowhere.jsonl for planner: name one with --set"),
    ],
)
def test_what_cannot_be_run_exits_with_2(words, told):
    result = CliRunner().invoke(app, ["eval", *words])
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_bundled_agent_is_run_with_its_own_set_and_junit_is_xml():
    ran = run("planner", "-o", "junit", "--model", "offline")
    assert ran.returncode == 0, ran.stderr
    root = ET.fromstring(ran.stdout)
    assert root.get("failures") == "0"
    assert {case.get("classname") for case in root.iter("testcase")} == {"planner"}


def test_the_example_keeps_its_promise():
    ran = run(f"{Path(__file__).parents[2] / 'examples/accountant.py'}:agent")
    assert ran.returncode == 0, ran.stderr


def test_further_agents_scripts_and_judges_are_named_by_options(folder):
    script = folder / "script.yaml"
    script.write_text("agents: {default: [{text: Good day.}], judge: [{text: 'FAIL\nIt is too short.'}]}")
    path = cases(folder, {**GOOD, "checks": {"contains": ["Good day."], "judge": "Long?"}}, name="other.jsonl")
    place = folder / "agent.py"
    options = ("--agent", f"{place}:agent", "--set", path, "--model", f"scripted:{script}", "-o", "json")
    ran = run(f"{place}:front", *options)
    assert ran.returncode == 0, ran.stderr
    (only,) = json.loads(ran.stdout)["cases"]
    assert (only["agent"], only["passed"], only["judged"]) == ("front", True, False)
    ran = run(f"{place}:front", *options, "--judge", f"scripted:{script}")
    assert ran.returncode == 1
    (only,) = json.loads(ran.stdout)["cases"]
    assert (only["failures"], only["judged"]) == (["the judge objects: It is too short."], True)


def test_a_delegate_that_is_nowhere_is_one_line(folder):
    cases(folder, GOOD)
    ran = run(f"{folder / 'agent.py'}:front")
    assert ran.returncode == 19
    assert ran.stderr == "error: agent front hands work to desk, which is not here: name it beside it\n"


def test_who_judges_is_named_and_never_offline():
    assert judged_by("", "") is None
    assert judged_by("offline", "") is None
    assert judged_by("scripted:x.yaml", "") is None
    assert judged_by("openai:llama3@http://127.0.0.1:9/v1", "") is not None
    with pytest.raises(SetupError, match="the offline model cannot judge"):
        judged_by("", "offline")


def verdict(*failures, is_judged=True, output="x"):
    return Verdict("desk", "one", failures, is_judged, output, "stop", 1, 10, 0.25)


def test_a_pass_without_the_judge_says_so():
    assert [word(one) for one in (verdict(), verdict(is_judged=False), verdict("no"))] == [
        "passed",
        "passed, not judged",
        "failed",
    ]
    assert score([verdict(), verdict("no")]) == 0.5


def test_junit_holds_whatever_an_answer_holds():
    root = ET.fromstring(junit([verdict('is not "<x>" \x00\ud800', output="a\x1b[31m & ]]>"), verdict()]))
    assert (root.get("tests"), root.get("failures"), root.get("time")) == ("2", "1", "0.500")
    failed, passed = root.iter("testcase")
    assert failed.find("failure").get("message") == 'is not "<x>" \ufffd\ufffd'
    assert failed.find("system-out").text == "a\ufffd[31m & ]]>"
    assert passed.find("failure") is None


def project(folder, *packages):
    """Makes a folder of packages, each with an agent and its set."""
    for name in packages:
        package = folder / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "agent.py").write_text(AGENT)
        cases(package, GOOD)
    return folder


def test_the_agent_of_a_project_is_found(tmp_path):
    ran = run(".", cwd=project(tmp_path / "desk-project", "price_desk"))
    assert ran.returncode == 0, ran.stderr
    assert "desk" in ran.stdout


def test_of_several_agents_of_a_folder_one_has_to_be_named(tmp_path):
    folder = project(tmp_path / "two", "first", "second")
    result = CliRunner().invoke(app, ["eval", str(folder)])
    assert result.exit_code == 2
    assert f"name one of {folder / 'first'}, {folder / 'second'}" in result.stderr


def test_a_set_that_is_not_there_is_named_with_its_form(tmp_path):
    folder = project(tmp_path / "one", "only")
    (folder / "only" / "evals.jsonl").unlink()
    result = CliRunner().invoke(app, ["eval", str(folder)])
    assert result.exit_code == 2
    assert '--set FILE.jsonl, a case a line: {"id"' in result.stderr
