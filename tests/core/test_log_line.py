"""A log line: listed fields, no secrets, one line of bounded length, whatever is logged."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.log_fields import FIELDS, ORIGIN
from meshwright.core.log_line import CUT, FIELD_BYTES, LINE_CHARS, MOST_ITEMS, TRACEBACK_CHARS, line_of

KEY = "mwk_0123456789ab_" + "0f" * 32


class Hostile:
    def __repr__(self):
        raise AssertionError("nobody asks for it")

    __str__ = __repr__


def told(**event):
    return json.loads(line_of(event))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2_000) | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.text()),
    max_leaves=30,
)


@given(event=st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(), VALUES, max_size=40))
def test_whatever_is_logged_is_one_line_of_json_within_bounds(event):
    event = {
        name: str(value) if name in ("timestamp", "level", "trace_id", "span_id") else value
        for name, value in event.items()
    }
    event |= {name: event[name][:40] for name in ("timestamp", "level", "trace_id", "span_id") if name in event}
    line = line_of(event)
    assert line.isascii()
    assert line.splitlines() == [line]
    assert line.isprintable()
    assert len(line) <= LINE_CHARS
    assert json.loads(line).keys() <= FIELDS.keys()


def test_a_field_that_is_not_listed_is_named_and_not_written():
    assert told(event="e", prompt="Dear diary", tool="t@1") == {"event": "e", "tool": "t@1", "unlisted": ["prompt"]}


def test_where_it_comes_from_stands_first():
    line = told(tool="t@1", task_id="t1", event="e", level="info", timestamp="now")
    assert list(line) == ["timestamp", "level", "event", "task_id", "tool"]
    assert set(ORIGIN) <= set(FIELDS)


def test_control_characters_break_no_line():
    line = line_of({"event": "e", "error": "a\nb\r\u2028c\x85d\x1b[31m\0"})
    assert line.splitlines() == [line]
    assert json.loads(line)["error"] == "a\nb\r\u2028c\x85d\x1b[31m\0"


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"timestamp", "level", "trace_id", "span_id"}))
def test_a_secret_is_in_no_field(name):
    for value in (KEY, f"it was {KEY}", [KEY], {KEY: 1}, {"a": {"b": KEY}}, [[[[KEY]]]], (KEY,), {KEY}):
        assert KEY not in line_of({name: value})


def test_a_secret_that_a_field_would_be_cut_within_is_not_shown_in_part():
    assert "mwk_0123" not in line_of({"error": "x" * (FIELD_BYTES - 20) + " " + KEY})


def test_texts_are_cut():
    assert len(told(error="ä" * 100_000)["error"].encode()) <= FIELD_BYTES
    assert len(told(tools=["t"] * 1_000)["tools"]) == MOST_ITEMS
    assert told(tools=[[[["deep"]]]])["tools"] == [[["(list)"]]]


def test_of_a_traceback_the_end_stays_which_says_what_it_was():
    text = told(exception="Traceback\n" + "  File\n" * 10_000 + "ValueError: broken")["exception"]
    assert text.startswith(CUT)
    assert text.endswith("ValueError: broken")
    assert len(text) == len(CUT) + TRACEBACK_CHARS


def test_a_line_that_is_too_long_keeps_where_it_comes_from():
    line = told(event="e", task_id="t1", **dict.fromkeys(("error", "why", "detail", "path"), "\U0001f600" * 300))
    assert (line["event"], line["task_id"]) == ("e", "t1")
    assert line["error"].startswith("\U0001f600")


@pytest.mark.parametrize(
    ("value", "written"),
    [(math.nan, "nan"), (math.inf, "inf"), (10**400, "(beyond 64 bits)"), (Hostile(), "(Hostile)"), (set, "(type)")],
)
def test_what_json_does_not_have_is_written_in_words(value, written):
    assert told(many=value)["many"] == written


NESTED = st.recursive(
    st.sampled_from(["plain", KEY, f"is {KEY}", "x" * 2_000 + KEY]),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.sampled_from(["a", KEY]), inner),
    max_leaves=60,
)


@given(value=NESTED)
def test_the_quick_look_misses_no_secret_that_is_written(value):
    assert KEY not in line_of({"event": "e", "detail": value})


def test_a_secret_at_the_end_of_a_long_traceback_is_found():
    assert KEY not in line_of({"exception": "x " * 100_000 + KEY})
