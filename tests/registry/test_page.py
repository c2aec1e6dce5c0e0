"""Pages: their size, and cursors that survive what is registered in between."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import InvalidRequestError
from meshwright.registry.page import MAX_PAGE, page_size, page_token, position


def test_a_page_has_the_size_that_was_asked_for():
    assert [page_size(0), page_size(1), page_size(MAX_PAGE)] == [50, 1, MAX_PAGE]


@pytest.mark.parametrize("size", [-1, MAX_PAGE + 1, 2**31 - 1])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(InvalidRequestError) as caught:
        page_size(size)
    assert list(caught.value.fields) == ["page_size"]


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,19}(\.[a-z][a-z0-9_]{0,19}){0,2}", fullmatch=True)
VERSIONS = st.just("") | st.from_regex(r"[1-9]{1,3}\.[1-9]\.0(-rc\.[1-9])?(\+[A-Za-z-]{1,8})?", fullmatch=True)


@given(NAMES, VERSIONS)
def test_a_cursor_says_behind_what_it_stands(name, version):
    assert position(page_token(name, version)) == (name, version)
    assert position("") == ("", "")


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "a",
        "docs.search",
        "\u00e4",
        "A" * 10_000,
        encoded("Docs "),
        encoded("docs"),
        encoded("a 1"),
        encoded("a 1.0.0 b"),
    ],
)
def test_what_is_no_cursor_is_refused(token):
    with pytest.raises(InvalidRequestError) as caught:
        position(token)
    assert list(caught.value.fields) == ["page_token"]


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_cursors(token):
    try:
        name, version = position(token)
    except InvalidRequestError:
        return
    assert token == "" or page_token(name, version) == token
