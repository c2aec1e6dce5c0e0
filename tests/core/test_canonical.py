"""JSON at the border: exact numbers, one canonical form, one digest."""

import json
import math

import pytest
import rfc8785
from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.canonical import (
    canonical,
    digest,
    escaped,
    from_struct,
    from_value,
    message_digest,
    printable,
    to_struct,
    to_value,
)
from meshwright.core.errors import InvalidRequestError
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

EXACT = 2**53 - 1


def struct(value: dict) -> struct_pb2.Struct:
    return json_format.Parse(json.dumps(value), struct_pb2.Struct())


def test_integral_numbers_become_ints_and_others_stay():
    read = from_struct(struct({"a": 1.0, "b": -3, "c": 1.5, "d": [0.0, {"e": EXACT}], "f": True}), "arguments")
    assert read == {"a": 1, "b": -3, "c": 1.5, "d": [0, {"e": EXACT}], "f": True}
    assert [type(read[name]) for name in "abcf"] == [int, int, float, bool]
    assert type(read["d"][0]) is int


def test_all_kinds_of_values_are_read():
    value = {"text": "ü", "none": None, "list": [[], {}], "no": False, "": "empty key"}
    assert from_struct(struct(value), "arguments") == value
    assert from_value(struct_pb2.Value(), "result") is None


@pytest.mark.parametrize("number", [2.0**53, -(2.0**53), 1e300, math.inf, -math.inf, math.nan])
def test_a_number_that_lost_digits_is_refused_with_its_pointer(number):
    sent = struct_pb2.Struct()
    sent.fields["a/b"].list_value.values.add().number_value = 1
    sent.fields["a/b"].list_value.values.add().struct_value.fields["c~d"].number_value = number
    with pytest.raises(InvalidRequestError) as caught:
        from_struct(sent, "arguments")
    assert caught.value.message.startswith("arguments/a~1b/1/c~0d ")
    assert "/a~1b/1/c~0d" in caught.value.fields["arguments"]


@pytest.mark.parametrize("number", [EXACT, -EXACT, 0.1, 1e-300, 123456789.5])
def test_numbers_within_the_exact_range_pass_unchanged(number):
    assert from_struct(struct({"n": number}), "arguments") == {"n": number}


def test_large_ints_travel_outwards_as_text():
    value = {"big": 2**53, "small": EXACT, "deep": [-(2**60), {"x": 2**100}]}
    printed = {"big": str(2**53), "small": EXACT, "deep": [str(-(2**60)), {"x": str(2**100)}]}
    assert from_struct(to_struct(value), "result") == printed
    assert from_value(to_value(value), "result") == printed


def test_the_canonical_form_does_not_know_order_or_spelling():
    assert canonical({"b": 1.0, "a": "\u00fc"}) == '{"a":"ü","b":1}'.encode()
    assert digest({"a": 1, "b": [1.0, 2]}) == digest({"b": [1, 2.0], "a": 1.0})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest([1, 2]) != digest([2, 1])


def test_a_request_hashes_alike_whether_it_came_as_json_or_as_protobuf():
    sent = TaskRequest(prompt="p", agent_id="a", max_steps=3, timeout=Duration(seconds=90))
    sent.output_schema.update({"type": "object", "properties": {"n": {"maximum": 10}}})
    as_json = json.dumps(json_format.MessageToDict(sent, preserving_proto_field_name=True))
    spelled = json_format.Parse(
        as_json.replace("output_schema", "outputSchema").replace("90s", "90.000s"), TaskRequest()
    )
    assert message_digest(spelled) == message_digest(TaskRequest.FromString(sent.SerializeToString()))
    assert message_digest(spelled) != message_digest(TaskRequest(prompt="q", agent_id="a"))


def test_pointers_are_escaped():
    assert escaped("a/b~c") == "a~1b~0c"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_in_c_is_the_same_canonical_form(value):
    try:
        expected = rfc8785.dumps(printable(value))
    except rfc8785.CanonicalizationError:
        expected = None
    try:
        written = canonical(value)
    except ValueError:
        written = None
    assert written == expected
