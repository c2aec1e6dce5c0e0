"""Schemas: what is refused when one is registered, what a value's violations say, and that nothing hangs."""

import contextlib
import socket
import threading
import time

import pytest

from meshwright.core.errors import InvalidRequestError
from meshwright.registry.schema import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_PATTERNS,
    MAX_VALUE_DEPTH,
    MAX_VIOLATIONS,
    Schema,
    Violation,
    explained,
)


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


def deep_schema(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def doubling(times: int) -> dict:
    parts: dict = {"d0": {"type": "string"}}
    for number in range(1, times + 1):
        parts[f"d{number}"] = {"allOf": [{"$ref": f"#/$defs/d{number - 1}"}] * 2}
    return {"$defs": parts, "$ref": f"#/$defs/d{times}"}


TWICE = {
    "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/n"}}, {"type": "array", "items": {"$ref": "#/$defs/n"}}]
}


@pytest.mark.parametrize(
    "schema",
    [
        {"description": "x" * 70_000},
        deep_schema(MAX_DEPTH + 1),
        {"enum": list(range(MAX_NODES))},
        {"properties": {f"p{number}": {"pattern": "a"} for number in range(MAX_PATTERNS + 1)}},
        {"pattern": "a" * 1_001},
        {"patternProperties": {"a" * 1_001: {}}},
        {"pattern": r"\p{L}{400}"},
        {"pattern": "(a{1000}){1000}"},
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"type": "thing"},
        {"properties": []},
        {"required": "a"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#missing"},
        {"$ref": "#"},
        doubling(40),
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$id": "https://example.com/schema"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"properties": {"enum": True, "a": {"$ref": "#/properties"}}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_beyond_the_limits_or_that_is_none_is_refused_soon_with_its_field(schema):
    start = time.process_time()
    with pytest.raises(InvalidRequestError) as caught:
        Schema(schema, "tool.input_schema")
    assert time.process_time() - start < 1
    assert list(caught.value.fields) == ["tool.input_schema"]
    assert caught.value.message.startswith("tool.input_schema")
    assert "\n" not in caught.value.message


def test_a_schema_at_the_limits_is_taken():
    assert not Schema(deep_schema(MAX_DEPTH - 1)).violations([["a"]])
    assert not Schema({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"}).violations("a")
    assert not Schema({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}}).violations(
        {"$ref": "x"}
    )


@pytest.mark.parametrize("place", ["$ref", "$dynamicRef"])
def test_a_remote_reference_is_refused_and_nothing_is_fetched(place):
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                connections.append(listener.accept())

        waiting = threading.Thread(target=accept)
        waiting.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        for schema in ({place: url}, {"properties": {"a/b": {"items": {place: url}}}}):
            with pytest.raises(InvalidRequestError, match="points elsewhere"):
                Schema(schema)
        waiting.join()
    assert connections == []


def test_the_pointer_to_a_bad_place_is_told():
    with pytest.raises(InvalidRequestError, match=r"schema/properties/a~1b/items/\$ref points elsewhere"):
        Schema({"properties": {"a/b": {"items": {"$ref": "file:///etc/passwd"}}}})


def test_violations_have_pointer_keyword_and_message():
    schema = Schema(
        {
            "type": "object",
            "properties": {"a/b": {"type": "array", "items": {"type": "integer"}}, "c~d": {"enum": ["x"]}},
            "required": ["e"],
            "additionalProperties": False,
        }
    )
    found = schema.violations({"a/b": [1, "two"], "c~d": "y", "f": 1})
    assert {(one.pointer, one.keyword) for one in found} == {
        ("/a~1b/1", "type"),
        ("/c~0d", "enum"),
        ("", "required"),
        ("/f", "additionalProperties"),
    }
    assert '"e" is a required property' in explained(found)


def test_what_fits_has_no_violations():
    schema = Schema({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}})
    assert schema.violations({"n": 3}) == []
    assert schema.violations({"n": 2**80}) == []
    assert schema.violations({}) == []


def test_an_empty_schema_takes_any_value():
    for value in (None, 1, "a", [1, {"b": None}], {"": []}):
        assert Schema({}).violations(value) == []


def test_only_the_first_violations_are_listed_and_each_is_short():
    schema = Schema({"items": {"type": "string", "maxLength": 3}})
    found = schema.violations(["x" * 5_000] * 50)
    assert len(found) == MAX_VIOLATIONS
    assert all(len(one.message) < 210 for one in found)
    assert "longer than 3" in found[0].message


def test_the_same_pattern_language_is_used_everywhere_and_it_is_linear():
    hostile = Schema(
        {"type": "object", "patternProperties": {"^(a+)+$": {"pattern": "^(x+x+)+y$"}}, "additionalProperties": False}
    )
    start = time.process_time()
    assert hostile.violations({"a" * 50_000: "x" * 50_000})
    assert hostile.violations({"a" * 50_000 + "!": "x"})
    assert time.process_time() - start < 1


def test_formats_are_checked():
    assert Schema({"format": "date"}).violations("2026-02-30")[0].keyword == "format"
    assert not Schema({"format": "date"}).violations("2026-02-28")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(10), 1),
        ({"$defs": {"n": TWICE}, "$ref": "#/$defs/n"}, nested(20)),
        ({"$defs": {"n": TWICE}, "$ref": "#/$defs/n"}, [nested(18)] * 2_000),
        ({"items": {"allOf": [{"type": "string"}] * 900}}, [1] * 10_000),
        ({"items": {"enum": [f"s{number}" for number in range(1_500)]}}, ["x"] * 10_000),
        ({"uniqueItems": True}, [{"a": number} for number in range(20_000)]),
        ({"uniqueItems": True}, [[number] for number in range(20_000)]),
    ],
    ids=["doubling", "recursion", "recursion often", "many parts", "large enum", "unique objects", "unique arrays"],
)
def test_no_value_takes_long_to_be_looked_at(schema, value):
    compiled = Schema(schema)
    start = time.process_time()
    compiled.violations(value)
    assert time.process_time() - start < 1.5


def test_a_value_that_would_take_too_long_does_not_fit():
    recursive = Schema({"$defs": {"n": TWICE}, "$ref": "#/$defs/n"})
    assert recursive.violations(nested(4)) == []
    assert recursive.violations([nested(18)] * 2_000)[0].keyword == "size"
    assert recursive.violations(nested(MAX_VALUE_DEPTH))[0].keyword == "depth"


def test_a_large_value_that_does_not_fit_is_told_so_without_a_list():
    schema = Schema({"items": {"type": "string"}})
    assert schema.violations(["a"] * 50_000) == []
    assert schema.violations(["a"] * 50_000 + [1]) == [Violation("", "", "does not fit; it is too large to say where")]


def test_a_value_deeper_than_a_struct_can_carry_does_not_fit():
    assert Schema({}).violations(nested(MAX_VALUE_DEPTH)) == []
    assert Schema({}).violations(nested(MAX_VALUE_DEPTH + 2))[0].keyword == "depth"
    assert Schema({}).violations(nested(900))[0].keyword == "depth"


def test_half_a_surrogate_pair_is_no_json():
    assert Schema({"type": "string"}).violations("\ud800")[0].keyword == "type"


def test_violations_are_written_as_one_sentence_for_a_model():
    found = [Violation("/a", "type", "1 is not a string"), Violation("", "required", "b is required")]
    assert explained(found) == "/a: 1 is not a string; /: b is required"
