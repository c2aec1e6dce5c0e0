"""`meshwright tool new`: what it writes passes its own test, and the linter; it writes over nothing."""

import ast
import json
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from meshwright.cli import tool_new
from meshwright.cli.main import app
from meshwright.cli.tool_kinds import PYTHON, TEMPLATES, Kind
from meshwright.cli.tool_new import function_name
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.ids import TOOL_NAME
from meshwright.registry.module import members
from meshwright.registry.tool import LocalTool


def run(*words):
    result = CliRunner().invoke(app, ["tool", "new", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout.splitlines()


RULES = "E,F,W,B,UP,ANN,RUF,PL"
STRICT = ["-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]


NAMES = [(name, Kind.PYTHON) for name in ("texts.count", "tool", "pytest")]


@pytest.mark.parametrize(("name", "kind"), [*NAMES, ("no", Kind.HTTP), ("shop.customers", Kind.SQL), ("up", Kind.GRPC)])
def test_what_is_written_is_linted_and_passes_its_test(tmp_path, name, kind):
    folder = tmp_path / "made for it"
    written = run(name, "--kind", kind.value, "--folder", folder)
    assert {str(path) for path in folder.iterdir()} == set(written)
    for command in (
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", RULES, "--ignore", "PLR2004", "."],
        [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "."],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *STRICT],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TEMPLATES[kind][2].template.count('def test_')} passed" in done.stdout


def test_the_tool_has_the_name_that_was_asked_for(tmp_path):
    file, _ = run("texts.count", "--folder", tmp_path)
    (found,) = members(file, LocalTool).values()
    assert (found.name, found.version) == ("texts.count", "1.0.0")


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("kept", ["texts_count_tool{}", "test_texts_count_tool.py"])
def test_nothing_is_written_over_and_nothing_half_written(tmp_path, kept, kind):
    kept = kept.format(TEMPLATES[kind][0])
    (tmp_path / kept).write_text("mine")
    with pytest.raises(SetupError, match=f"{kept} is there already"):
        run("texts.count", "--kind", kind.value, "--folder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    assert (tmp_path / kept).read_text() == "mine"


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="file"):
        run("texts.count", "--folder", tmp_path / "file")


@pytest.mark.parametrize("name", ["Texts", "a/b", "", "a..b", "x" * 65])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequestError, match="names no tool"):
        run(name, "--folder", tmp_path)
    assert list(tmp_path.iterdir()) == []


WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True) | st.sampled_from(["class", "tool", "x" * 64])


@given(st.lists(WORDS, min_size=1, max_size=5).map(".".join).filter(TOOL_NAME.fullmatch))
def test_whatever_the_name_the_files_are_python_with_short_lines(name):
    module = f"{name.replace('.', '_')}_tool"
    words = {"name": name, "module": module, "function": function_name(name)}
    for ending, tool, test in TEMPLATES.values():
        texts = [template.substitute(words) for template in (tool, test)]
        assert max(len(line) for text in texts for line in text.splitlines()) <= 120
        for text in texts[ending == ".yaml" :]:
            ast.parse(text)
        if ending == ".yaml":
            assert yaml.safe_load(texts[0])["tools"][0]["name"] == name
    assert json.dumps(name) in PYTHON.substitute(words)


def test_names_that_mean_something_else_are_not_taken():
    assert [function_name(name) for name in ("a.class", "print", "bench", "x.count")] == [
        "class_",
        "print_",
        "bench_",
        "count",
    ]
    assert "tool" in tool_new.TAKEN
