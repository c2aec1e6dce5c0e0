"""The vocabulary of the log: what the code says is listed, what is listed is said, and the docs list the same."""

import ast
import re
from pathlib import Path

import pytest

from meshwright.core.log_fields import FACTS, FIELDS, ORIGIN
from meshwright.core.log_levels import LOGGERS

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for part in ("core", "registry", "agents", "gateway", "cli") for path in sorted((ROOT / part).rglob("*.py"))
]
PAGE = (ROOT / "docs/logs.md").read_text()
METHODS = {"debug", "info", "warning", "error", "critical", "exception"}
BY_LIBRARY = {"exc_info", "stack_info"}


def is_log(node):
    """Whether a call is one of a logger of ours."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
        return False
    said = ast.unparse(node.func.value)
    return said in ("log", "self._log") or said.startswith("structlog.get_logger(")


def said_in(source):
    """Lists the calls of loggers with the names of their fields; those of `**facts` are in dicts of that function."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in filter(is_log, ast.walk(function)):
            named = {keyword.arg for keyword in node.keywords if keyword.arg}
            for spread in (keyword.value for keyword in node.keywords if keyword.arg is None):
                named |= keys_of(function, ast.unparse(spread))
            yield node, named


def keys_of(function, variable):
    """Returns the names in the dicts that a variable may stand for."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [variable]:
            dicts = [one for one in ast.walk(node.value) if isinstance(one, ast.Dict)]
            assert dicts, f"{variable} is spread over a line of the log: write it as a dict beside"
            found |= {ast.literal_eval(key) for one in dicts for key in one.keys}
    assert found, f"{variable} is spread over a line of the log, and nobody knows what is in it"
    return found


CALLS = [(path, node, named) for path in SOURCES for node, named in said_in(path.read_text())]


def test_every_field_that_is_said_is_listed():
    strangers = {
        f"{path.relative_to(ROOT)}:{node.lineno}": sorted(named - FIELDS.keys() - BY_LIBRARY)
        for path, node, named in CALLS
    }
    assert len(strangers) > 60
    assert {place: names for place, names in strangers.items() if names} == {}


def test_no_field_hides_one_that_stands_on_each_line():
    own = set(ORIGIN) - {"task_id"}
    assert [ast.unparse(node) for _, node, named in CALLS if named & own] == []


def test_every_field_that_is_listed_is_said():
    said = set().union(*(named for _, _, named in CALLS)) | {"exception", "unlisted"}
    assert set(FACTS) - said == set()


def test_failures_that_the_page_says_are_told_once_a_minute_are_held_back_by_the_code():
    table = PAGE.partition("| away | each minute | over |")[2].partition("\n\n")[0]
    named = {event for row in table.splitlines()[2:] for event in re.findall(r"`(\w+)`", row)}
    guarded = {
        node.args[0].value
        for path in SOURCES
        for branch in ast.walk(ast.parse(path.read_text()))
        if isinstance(branch, ast.If) and re.search(r"\.is_(news|over)\(\)$", ast.unparse(branch.test))
        for node in filter(is_log, ast.walk(branch))
    }
    assert named == guarded


def test_events_are_words_and_not_sentences():
    for path, node, _ in CALLS:
        event = node.args[0]
        assert isinstance(event, ast.Constant | ast.Name), f"{path}:{node.lineno}"
        assert isinstance(event, ast.Name) or re.fullmatch(r"[a-z_]+", event.value), f"{path}:{node.lineno}"


def test_every_logger_is_listed_and_every_listed_one_is_there():
    made = {name for path in SOURCES for name in re.findall(r'structlog\.get_logger\("([a-z_]+)"\)', path.read_text())}
    assert made == set(LOGGERS)
    unnamed = [path for path in SOURCES if re.search(r"get_logger\((?!\")", path.read_text())]
    assert unnamed == [], "a logger without a name has no level of its own"


@pytest.mark.parametrize(("table", "heading"), [(FIELDS, "field"), (LOGGERS, "logger")], ids=["fields", "loggers"])
def test_the_page_lists_the_same(table, heading):
    (rows,) = re.findall(rf"^\| {heading} \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    found = dict(re.fullmatch(r"\| `([a-z_]+)` \| (.+) \|", row).groups() for row in rows.splitlines())
    assert found == table
    assert list(found) == list(table)
