"""Arguments at the border: what is read, what is refused and with which words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import InvalidRequestError, MeshError
from meshwright.registry import tool
from meshwright.registry.arguments import MAX_BYTES, check_arguments, read_arguments
from meshwright.registry.hosted import hosted
from meshwright.registry.threads import Threads


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expecting value"),
        ("{", "Expecting"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"a": 1} x', "Extra data"),
        ('{"a": 1, "a": 2}', 'the key "a" twice'),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', 'the key "b" twice'),
        ('{"a": 1, "\\u0061": 2}', 'the key "a" twice'),
        ('{"a": NaN}', "NaN"),
        ('{"a": Infinity}', "Infinity"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": -1.5e400}', "-1.5e400"),
        ("[" * 100_000, "levels"),
        ('{"a":' * 50_000, "levels"),
        ('{"a": ' + "1" * 5_000 + "}", "digits"),
        ('{"a": "\ud800"}', "surrogate"),
        ('{"a": ["\\ud83d"]}', "surrogate"),
        ('{"\\uDC00": 1}', "surrogate"),
        ('{"a": "' + "x" * MAX_BYTES + '"}', "bytes"),
        ('{"a": "' + "ü" * (MAX_BYTES // 2) + '"}', "bytes"),
        ("\ufeff{}", ""),
        ('{"a": 01}', "Expecting"),
        ("{'a': 1}", "Expecting"),
        ('{"a": "\n"}', "control"),
    ],
    ids=lambda text: ascii(text[:25]),
)
def test_a_text_that_is_refused_is_told_why(text, told):
    with pytest.raises(InvalidRequestError) as caught:
        read_arguments(text)
    assert told in caught.value.fields["arguments"]
    assert len(caught.value.message) < 1_000
    assert caught.value.to_status().ByteSize() < 4_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_json_can_say_is_read_as_it_is(value):
    assert read_arguments(json.dumps(value)) == value
    assert read_arguments(json.dumps(value, ensure_ascii=False)) == value


@given(text=st.text(alphabet='{}[]",:0123456789eE+-.\\ux dabNIntrufalse\ud800', max_size=60))
def test_any_text_is_read_or_refused(text):
    refused = refused_by(lambda: read_arguments(text))
    if refused:
        assert set(refused.fields) == {"arguments"}
        assert refused.to_status().ByteSize() < 4_000


def refused_by(act) -> InvalidRequestError | None:
    try:
        act()
    except InvalidRequestError as error:
        return error
    return None


@given(name=st.text(min_size=1), inner=st.integers(0, 5))
def test_a_repeated_key_is_found_wherever_it_stands(name, inner):
    key = json.dumps(name)
    text = '{"o": ' * inner + f'{{{key}: 1, "other key": 2, {key}: 1}}' + "}" * inner
    with pytest.raises(InvalidRequestError, match="twice"):
        read_arguments(text)


@tool(effect="pure")
def book(a: int, b: str, c: list[int], d: dict[str, int]) -> int:
    """Books."""
    return a


BOOK = hosted(book, Threads(1, 1))


def refusal(arguments) -> MeshError:
    with pytest.raises(InvalidRequestError) as caught:
        check_arguments(BOOK, arguments)
    return caught.value


def test_every_violation_is_told_with_pointer_and_keyword():
    fields = refusal({"a": "x", "b": 1, "c": [1, "two", 3.5], "d": {}}).fields
    assert set(fields) == {"arguments/a", "arguments/b", "arguments/c/1", "arguments/c/2"}
    assert all(text.startswith("type: ") for text in fields.values())


def test_several_violations_of_one_place_are_all_told():
    text = refusal({}).fields["arguments"]
    assert text.count("required: ") == 4
    for name in ("a", "b", "c", "d"):
        assert f'"{name}" is a required property' in text


def test_a_pointer_is_escaped_and_bounded():
    fields = refusal({"a": 1, "b": "", "c": [], "d": {"x/y~z": "no", "k" * 100_000: "no"}}).fields
    assert set(fields) >= {"arguments/d/x~1y~0z"}
    assert all(len(place) < 400 for place in fields)


@given(value=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "x" * 9_000]), VALUES | st.text(min_size=5_000)))
def test_a_refusal_is_short_enough_for_a_model(value):
    refused = refused_by(lambda: check_arguments(BOOK, value))
    if refused:
        assert len(refused.message.encode()) <= 1_000
        assert len(refused.fields) <= 10
        assert refused.to_status().ByteSize() < 5_000
