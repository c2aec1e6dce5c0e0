"""How much work a schema can make: plain for plain schemas, bounded for recursive ones."""

import time

import pytest

from meshwright.registry.effort import efforts

LIMIT = 1_000_000


def reference(name: str) -> dict:
    return {"$ref": f"#/$defs/{name}"}


def test_a_flat_schema_is_applied_once_at_each_place():
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    assert efforts(schema, 3, LIMIT) == [1, 1, 0, 0]


def test_what_is_combined_adds_up_and_what_excludes_each_other_does_not():
    combined = {"allOf": [{"type": "string"}, {"minLength": 1}], "not": {"const": ""}}
    assert efforts(combined, 0, LIMIT) == [4]
    exclusive = {"properties": {"a": {"enum": [1, 2, 3]}, "b": {}}, "additionalProperties": {}}
    assert efforts(exclusive, 1, LIMIT) == [1, 4]
    overlapping = {"properties": {"a": {}}, "patternProperties": {"^a": {}, "b$": {}}, "propertyNames": {}}
    assert efforts(overlapping, 1, LIMIT) == [1, 4]
    arrays = {"prefixItems": [{}, {"allOf": [{}, {}]}], "items": {}, "contains": {}}
    assert efforts(arrays, 1, LIMIT) == [1, 4]


def test_dependencies_of_both_drafts_are_applied_where_they_stand():
    twice = {"allOf": [{}, {}]}
    assert efforts({"dependentSchemas": {"a": twice}}, 0, LIMIT) == [4]
    assert efforts({"dependencies": {"a": twice, "b": ["c", "d"], "e": True}}, 0, LIMIT) == [4]


def test_a_tree_stays_flat_however_deep_a_value_goes():
    node = {"type": "object", "properties": {"left": reference("node"), "right": reference("node")}}
    assert set(efforts({"$defs": {"node": node}, **reference("node")}, 24, LIMIT)) == {2}


def test_recursion_that_meets_itself_grows_and_ends_the_list():
    twice = {"anyOf": [{"items": reference("n")}, {"items": reference("n")}]}
    counts = efforts({"$defs": {"n": twice}, **reference("n")}, 24, LIMIT)
    assert counts[:3] == [4, 8, 16]
    assert len(counts) < 24
    assert counts[-1] <= LIMIT


def test_references_are_followed_by_pointer_anchor_and_to_the_root():
    assert efforts({"properties": {"a/b": {"$ref": "#"}}}, 2, LIMIT) == [1, 2, 2]
    by_pointer = {"properties": {"x": {"$ref": "#/$defs/a~1b%25/0"}}, "$defs": {"a/b%": [{"allOf": [{}, {}]}]}}
    assert efforts(by_pointer, 1, LIMIT) == [1, 4]
    by_anchor = {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "allOf": [{}]}}}
    assert efforts(by_anchor, 0, LIMIT) == [3]


def test_a_bomb_of_references_is_counted_fast():
    bomb = {"d0": {"type": "string"}} | {f"d{n}": {"allOf": [reference(f"d{n - 1}")] * 2} for n in range(1, 400)}
    start = time.thread_time()
    assert efforts({"$defs": bomb, **reference("d399")}, 24, LIMIT) == []
    assert time.thread_time() - start < 1


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"dependencies": {"a": {"$ref": "#"}}},
        {"$defs": {"a": reference("b"), "b": reference("a")}, **reference("a")},
    ],
)
def test_a_reference_that_leads_back_to_itself_is_refused(schema):
    with pytest.raises(ValueError, match="without going into the value"):
        efforts(schema, 24, LIMIT)
