"""Patterns: what they find, what they refuse, and that no text makes them slow."""

import re
import time

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.pattern import Pattern

SOURCES = ["a", "^a", "a$", "a+b", "[ab]{2}", "a|b", "^(a|bc)*$", "c?"]


@given(st.sampled_from(SOURCES), st.text("abc", max_size=8))
def test_a_pattern_is_found_anywhere_in_a_text(source, text):
    assert Pattern(source).is_in(text) == bool(re.search(source, text))


@pytest.mark.parametrize("source", ["(", r"(a)\1", "(?=a)b", "(a{1000}){1000}"])
def test_what_is_no_expression_looks_around_or_grows_too_large_is_refused(source):
    with pytest.raises(jsonschema_rs.ValidationError):
        Pattern(source)


def test_no_text_makes_it_slow():
    pattern, began = Pattern("^(a+)+$"), time.process_time()
    assert not pattern.is_in("a" * 100_000 + "b")
    assert time.process_time() - began < 1


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        Pattern("a").is_in("a\ud800")
