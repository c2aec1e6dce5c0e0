"""Scopes of the mesh: known ones pass, slips of the pen are refused, others are left to tools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import InvalidRequestError
from meshwright.core.known_scope import KNOWN, NOUNS, opens_methods

SCOPES = st.sampled_from(sorted(KNOWN))


@pytest.mark.parametrize("scope", [*sorted(KNOWN), *sorted(NOUNS), "*", "tools:write:docs.", "tools:write:docs.search"])
def test_a_scope_that_opens_something_is_known(scope):
    assert opens_methods(scope)


@given(SCOPES, st.data())
def test_no_scope_with_a_letter_too_few_is_taken_for_a_tools(scope, data):
    at = data.draw(st.integers(0, len(scope) - 1))
    with pytest.raises(InvalidRequestError, match="is no scope of the mesh"):
        opens_methods(scope[:at] + scope[at + 1 :])


@given(SCOPES, st.text("abc:.", min_size=1, max_size=10))
def test_what_nobody_asks_for_below_a_known_scope_is_refused(scope, rest):
    if scope == "tools:write":
        assert opens_methods(f"{scope}:{rest}")
    else:
        with pytest.raises(InvalidRequestError):
            opens_methods(f"{scope}:{rest}")


@pytest.mark.parametrize("scope", ["mail:send", "bogus", "docs:read", "payments.refund", ":"])
def test_a_scope_of_another_kind_is_left_to_tools(scope):
    assert not opens_methods(scope)
