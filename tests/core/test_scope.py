"""Scopes: what covers what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.scope import EVERYTHING, covers, missing

WORD = st.text("abc.", min_size=1, max_size=4)
SCOPE = st.lists(WORD, min_size=1, max_size=4).map(":".join)


@pytest.mark.parametrize(
    ("held", "needed", "is_covered"),
    [
        ({"mail:send"}, "mail:send", True),
        ({"mail"}, "mail:send", True),
        ({"tools:write:docs."}, "tools:write:docs.search", True),
        ({"*"}, "mail:send", True),
        ({"mail:send"}, "mail", False),
        ({"mail"}, "mailbox:read", False),
        ({"tools:write:docs"}, "tools:write:docs.search", False),
        ({"tools:write:"}, "tools:write:docs.search", False),
        ({"mail:*"}, "mail:send", False),
        ({""}, ":mail", False),
        ({""}, "", False),
        (set(), "mail:send", False),
    ],
)
def test_a_scope_covers_itself_what_stands_below_it_and_what_begins_so(held, needed, is_covered):
    assert covers(held, needed) is is_covered
    assert missing(held, [needed]) == ([] if is_covered else [needed])


@given(SCOPE, SCOPE)
def test_a_scope_covers_only_what_begins_with_it(held, needed):
    assert covers({held}, held)
    assert covers({held}, f"{held}:{needed}")
    assert covers({EVERYTHING}, needed)
    assert not covers({held}, needed) or needed.startswith(held)


@given(st.sets(SCOPE, max_size=4), st.sets(SCOPE, max_size=4), SCOPE)
def test_more_scopes_never_cover_less(held, more, needed):
    assert not covers(held, needed) or covers(held | more, needed)


def test_what_is_missing_is_told_sorted_and_once():
    assert missing(["mail"], ["people", "mail:send", "docs", "people"]) == ["docs", "people"]
