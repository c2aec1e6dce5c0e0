"""Eval sets: what is one, and where it is wrong if it is none."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.agents.evals.case import MAX_CASES, read_set
from meshwright.core.errors import InvalidRequestError

GOOD = {"id": "one", "prompt": "Go.", "checks": {"contains": ["x"]}}


@pytest.fixture
def written(tmp_path: Path):
    def write(*lines: object) -> Path:
        path = tmp_path / "evals.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return write


def wrong(path: Path) -> dict[str, str]:
    with pytest.raises(InvalidRequestError, match="evals") as caught:
        read_set(path)
    assert len(caught.value.message) < 20_000
    return caught.value.fields


def test_cases_are_read_line_by_line(written, tmp_path):
    (tmp_path / "texts").mkdir()
    everything = {
        "contains": ["a"],
        "lacks": ["b"],
        "matches": ["^c"],
        "equals": "d",
        "schema": {"type": "object"},
        "calls": [{"tool": "ask.researcher", "arguments": {"prompt": "x"}, "agent": "desk"}],
        "no_calls": [{"tool": "docs.*"}, {"tool": "*"}],
        "finish": "max_steps",
        "max_steps": 3,
        "max_tokens": 900,
        "judge": "It is polite.",
    }
    full = {
        "id": "two",
        "prompt": "Go.",
        "docs": {"a/b.md": "text"},
        "max_steps": 2,
        "token_budget": 512,
        "timeout_s": 5,
    }
    one, two, three = read_set(written(GOOD, "", {**full, "checks": everything}, {**GOOD, "id": "3", "docs": "texts"}))
    assert (one.id, one.checks.finish, one.docs) == ("one", "stop", None)
    assert two.checks.json_schema == {"type": "object"}
    assert two.checks.calls[0].agent == "desk"
    assert three.docs == "texts"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"id": "a b"}, "line 2: id"),
        ({"id": 7}, "line 2: id"),
        ({"prompt": ""}, "line 2: prompt"),
        ({"unknown": 1}, "line 2: unknown"),
        ({"checks": {}}, "line 2: checks"),
        ({"checks": {"contains": "x"}}, "line 2: checks.contains"),
        ({"checks": {"matches": ["("]}}, "line 2: checks.matches"),
        ({"checks": {"schema": {"type": "nothing"}}}, "line 2: checks.schema"),
        ({"checks": {"schema": {"$ref": "http://example.com/x"}}}, "line 2: checks.schema"),
        ({"checks": {"calls": [{"tool": "No Tool"}]}}, "line 2: checks.calls.0.tool"),
        ({"checks": {"finish": "never"}}, "line 2: checks.finish"),
        ({"checks": {"max_steps": 26}}, "line 2: checks.max_steps"),
        ({"timeout_s": 601}, "line 2: timeout_s"),
        ({"docs": {"../x.md": "text"}}, "line 2: docs"),
        ({"docs": {"/x.md": "text"}}, "line 2: docs"),
        ({"docs": "/etc"}, "line 2: docs"),
        ({"docs": "nowhere"}, "case two: docs"),
        ({"id": "one"}, "id one"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(written, change, place):
    fields = wrong(written(GOOD, {**GOOD, "id": "two", **change}))
    assert len(fields) == 1
    assert next(iter(fields)).startswith(place)


def test_all_lines_are_told_at_once(written):
    assert set(wrong(written("{", "[1]", GOOD, '{"id": "x"}'))) == {
        "line 1",
        "line 2",
        "line 4: prompt",
        "line 4: checks",
    }


@pytest.mark.parametrize("lines", [[], ["", "  "], ["[" * 100_000]])
def test_a_set_without_a_case_is_none(written, lines):
    assert set(wrong(written(*lines))) == {"line 1"}


def test_a_set_is_bounded(written):
    assert set(wrong(written(*[{**GOOD, "id": str(number)} for number in range(MAX_CASES + 1)]))) == {"set"}


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    assert set(wrong(tmp_path / "evals.jsonl")) == {"set"}
    (tmp_path / "evals.jsonl").write_bytes(b"\xff\xfe")
    assert set(wrong(tmp_path / "evals.jsonl")) == {"set"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "prompt", "checks", "docs", "x"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    JSON
    | st.fixed_dictionaries({"id": st.text(max_size=5), "prompt": st.text(max_size=5), "checks": JSON, "docs": JSON})
)
def test_whatever_a_line_holds_it_is_a_case_or_told(written, value):
    with contextlib.suppress(InvalidRequestError):
        assert len(read_set(written(value))) == 1
