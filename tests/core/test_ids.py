"""Identifiers: their looks, their order, and how a child's is told from its root's."""

import time
import uuid

import pytest

from meshwright.core import ids
from meshwright.core.errors import InvalidRequestError
from meshwright.core.ids import (
    AGENT_ID,
    CALLER_ID,
    TARGET,
    TASK_ID,
    TOOL_NAME,
    VERSION,
    checked,
    child_id,
    root_of,
    uuid7,
)


def test_a_uuid7_says_its_version_and_variant():
    made = uuid.UUID(uuid7())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_uuid7s_sort_by_the_time_at_which_they_were_made(monkeypatch):
    now = time.time_ns()
    made = []
    for step in range(50):
        monkeypatch.setattr(time, "time_ns", lambda step=step: now + step * 1_000_000)
        made.append(uuid7())
    assert made == sorted(made)
    assert uuid.UUID(made[0]).int >> 80 == now // 1_000_000


def test_uuid7s_of_one_moment_differ(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    assert len({uuid7() for _ in range(1_000)}) == 1_000


def test_the_same_call_names_the_same_child():
    assert child_id("root", "root", 2, "c-1") == child_id("root", "root", 2, "c-1")


def test_another_call_step_or_parent_names_another_child():
    names = [("root", 2, "c-1"), ("root", 3, "c-1"), ("root", 2, "c-2"), ("root.a", 2, "c-1"), ("root", 21, "-1")]
    assert len({child_id("root", parent, step, call) for parent, step, call in names}) == len(names)


def test_a_childs_id_tells_its_root_and_is_a_task_id():
    root = "a" * 64
    child = child_id(root, root, 1, "call")
    grandchild = child_id(root, child, 1, "call")
    assert root_of(child) == root_of(grandchild) == root_of(root) == root
    assert TASK_ID.fullmatch(child)
    assert TASK_ID.fullmatch(grandchild)
    assert not CALLER_ID.fullmatch(child)


def test_a_call_key_is_stable_and_fits_where_keys_are_taken():
    assert ids.call_key("t", 1, "c") == ids.call_key("t", 1, "c")
    assert ids.call_key("t", 1, "c") != ids.call_key("t", 1, "d")
    assert CALLER_ID.fullmatch(ids.call_key("t", 1, "c"))


@pytest.mark.parametrize(
    ("left", "right"),
    [(("a", "bc"), ("ab", "c")), (("a\0b", "c"), ("a", "b\0c")), (("1:a", ""), ("", "1:a")), (("a",), ("a", ""))],
)
def test_two_lists_of_parts_never_hash_alike(left, right):
    assert ids.digest(*left) != ids.digest(*right)


GOOD = {
    CALLER_ID: ["a", "A-b_9", "x" * 64],
    TASK_ID: ["a", "a.0f", "x" * 64 + "." + "z" * 32],
    AGENT_ID: ["a", "a-1", "a" * 63],
    TOOL_NAME: ["add", "docs.search", "a_b.c1", "a" * 64],
    VERSION: ["0.0.0", "1.2.3", "1.0.0-rc.1", "1.0.0-0a.b-c", "1.0.0+build.7", "1.0.0-x+y", "10.20.30"],
    TARGET: ["127.0.0.1:1", "host-1.example_x:65535", "[::1]:7070"],
}
BAD = {
    CALLER_ID: ["", "a.b", "a/b", "x" * 65, "a\n", "ä", "a b"],
    TASK_ID: ["", "a.b.c", "a.", ".b", "a.B", "a\n", "a." + "z" * 33],
    AGENT_ID: ["", "A", "1a", "-a", "a_b", "a" * 64, "a\n"],
    TOOL_NAME: ["", "Add", ".a", "a.", "a..b", "a-b", "1a", "a" * 65, "a\n", "a.1"],
    VERSION: [
        "",
        "1",
        "1.2",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3+",
        "v1.2.3",
        "1.٢.3",
        "1.2.3\n",
        "1.2." + "3" * 64,
    ],
    TARGET: ["", "host", ":1", "host:", "host:x", "host:123456", "::1:7070", "a b:1", "unix:///x:1", "h:1\n"],
}


@pytest.mark.parametrize(
    ("pattern", "value"), [(pattern, value) for pattern, values in GOOD.items() for value in values]
)
def test_what_fits_is_returned(pattern, value):
    assert checked("field", value, pattern) == value


@pytest.mark.parametrize(
    ("pattern", "value"), [(pattern, value) for pattern, values in BAD.items() for value in values]
)
def test_what_does_not_fit_is_refused_with_its_field(pattern, value):
    with pytest.raises(InvalidRequestError) as caught:
        checked("a.field", value, pattern)
    assert list(caught.value.fields) == ["a.field"]


@pytest.mark.parametrize("form", [AGENT_ID, CALLER_ID, TARGET, TASK_ID, TOOL_NAME, VERSION])
def test_what_an_identifier_should_look_like_is_said_in_words(form):
    with pytest.raises(InvalidRequestError) as refused:
        checked("some.field", "\n", form)
    said = f"must be {form.words}"
    assert (refused.value.message, refused.value.fields) == (f"some.field {said}", {"some.field": said})
    assert not set("[]{}\\^$") & set(said)
    with pytest.raises(ValueError, match="must be"):
        form.validated("\n")
