"""Values: what models and tools write survives the journal, or becomes something that does."""

import json

import pytest

from meshwright.agents.values import (
    DEEPEST,
    TOO_DEEP,
    arguments_of,
    fitting,
    fitting_arguments,
    is_deep,
    parsed_result,
    planned_call,
)
from meshwright.core.canonical import from_value, to_value
from meshwright.gen.agents.v1.step_event_pb2 import PlannedCall


def nested(levels):
    value = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


def journaled(arguments):
    return arguments_of(PlannedCall.FromString(planned_call("c", "t", arguments).SerializeToString()))


@pytest.mark.parametrize(
    "number", [2**53, -(2**53), 2**64 + 1, 1e20, 1e300, 2**53 - 1, 0.1, -7, True, 12345678901234567890]
)
def test_every_number_comes_back_as_it_was(number):
    arguments = {"n": number, "deep": [{"n": number}]}
    back = journaled(arguments)
    assert back == arguments
    assert type(back["n"]) is type(number)


def test_long_integers_stand_as_text_in_the_struct_and_exactly_beside_it():
    call = planned_call("c", "t", {"n": 2**64 + 1})
    assert call.arguments["n"] == "18446744073709551617"
    assert json.loads(call.arguments_json) == {"n": 2**64 + 1}
    assert planned_call("c", "t", {"n": 7}).arguments_json == ""


def test_what_is_no_number_or_no_character_becomes_text():
    assert fitting({"a": float("nan"), "b": [float("-inf")], "c\ud800": "x\ud83d", "d": 1.5}) == {
        "a": "nan",
        "b": ["-inf"],
        "c?": "x?",
        "d": 1.5,
    }


def test_arguments_nested_too_deeply_are_replaced():
    assert not is_deep(nested(DEEPEST // 2))
    assert is_deep(nested(DEEPEST // 2 + 1))
    assert fitting_arguments(nested(400)) == {TOO_DEEP: True}
    assert journaled(nested(DEEPEST // 2)) == nested(DEEPEST // 2)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1e+20", "1e+20"),
        ("9007199254740992.0", "9007199254740992.0"),
        ("9007199254740992", "9007199254740992"),
        ("[NaN, -Infinity]", ["NaN", "-Infinity"]),
        ('{"a": 0.5, "b": 3.0}', {"a": 0.5, "b": 3}),
        (r'"\ud83d"', "?"),
    ],
)
def test_a_result_reads_back_from_the_journal(text, read):
    assert from_value(to_value(parsed_result(text)), "result") == read
