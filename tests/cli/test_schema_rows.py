"""Schemas as rows: every place once, whatever refers to what, and an end to it."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from meshwright.cli.schema_rows import MAX_DEPTH, MAX_ROWS, MORE, rows
from meshwright.core.errors import InvalidRequestError
from meshwright.registry.schema import Schema


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Square(BaseModel):
    kind: Literal["square"]
    side: float = Field(ge=0, le=10)


class Node(BaseModel):
    """A node."""

    name: Annotated[str, Field(pattern="^a|`b$", examples=["a`b"])]
    children: list["Node"] = []
    parent: "Node | None" = None


def told(kind, **config):
    return [(row.place, row.kind, row.rules) for row in rows(TypeAdapter(kind).json_schema(**config))]


def test_nested_objects_have_a_row_for_each_member():
    class Order(BaseModel):
        items: list[Circle]
        note: str | None = None

    schema = Order.model_json_schema()
    assert [(row.place, row.kind, row.is_required) for row in rows(schema)] == [
        ("items", "list of Circle", True),
        ("items[].kind", "string", True),
        ("items[].radius", "number", True),
        ("note", "string or null", False),
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, ("integer", ())),
        (list[int | str], ("list of integer or string", ())),
        (Literal["a", "b"], ("string", ('one of `"a"`, `"b"`',))),
        (Annotated[int, Field(ge=1, le=9)], ("integer", ("1 to 9",))),
        (Annotated[int, Field(gt=1, lt=9)], ("integer", ("more than 1, less than 9",))),
        (Annotated[str, Field(min_length=2, max_length=2)], ("string", ("exactly 2 characters",))),
        (Annotated[str, Field(min_length=2)], ("string", ("at least 2 characters",))),
        (Annotated[list[int], Field(max_length=3)], ("list of integer", ("at most 3 items",))),
        (Annotated[str, Field(pattern="^`$")], ("string", (r"matches `^\x60$`",))),
        (
            Annotated[int, Field(multiple_of=5, examples=[5, 10])],
            ("integer", ("a multiple of 5", "for example `5`, `10`")),
        ),
        (set[int], ("list of integer", ("no item twice",))),
        (Any, ("anything", ())),
    ],
)
def test_what_a_value_must_keep_to_stands_in_its_row(kind, expected):
    assert told(kind) == [("", *expected)]


def test_of_alternatives_each_tells_its_own_members():
    found = told(Circle | Square)
    assert found[0] == ("", "Circle or Square", ())
    assert ("radius", "number", ("where it is Circle", "more than 0")) in found
    assert ("side", "number", ("where it is Square", "0 to 10")) in found


def test_a_schema_within_itself_is_told_once():
    found = {place: rules for place, _, rules in told(list[Node])}
    assert found["[].children[]"] == ("again what `[]` is",)
    assert found["[].parent"] == ("default `null`", "again what `[]` is")
    assert found["[].name"] == (r"matches `^a|\x60b$`", r'for example `"a\u0060b"`')


def test_members_of_any_name_and_items_by_place_have_rows():
    found = told(dict[str, tuple[int, str]])
    assert [place for place, _, _ in found] == ["", "*", "*[0]", "*[1]"]


def test_all_of_what_a_value_must_be_is_one_row():
    schema = {
        "type": "object",
        "properties": {"n": {"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 9}], "description": "A digit"}},
    }
    (row,) = rows(schema)
    assert (row.kind, row.rules, row.description) == ("integer", ("1 to 9",), "A digit")


def test_what_no_row_can_tell_is_said_to_be_there():
    (row,) = rows({"type": "string", "not": {"const": "x"}})
    assert row.rules == ("further rules: see the schema",)


def nested(depth, names):
    """An object whose members are objects, and so on."""
    levels = {
        f"l{n}": {"type": "object", "properties": {name: {"$ref": f"#/$defs/l{n + 1}"} for name in names}}
        for n in range(depth)
    }
    return {"$ref": "#/$defs/l0", "$defs": levels | {f"l{depth}": {"type": "integer"}}}


def test_of_a_schema_that_goes_on_and_on_the_first_rows_are_shown():
    found = rows(nested(11, "ab"))
    assert len(found) == MAX_ROWS + 1
    assert found[-1].rules == (MORE,)


def test_what_lies_too_deep_is_said_to_be_there():
    assert MORE not in rows(nested(MAX_DEPTH, "a"))[-1].rules
    assert rows(nested(MAX_DEPTH + 2, "a"))[-1].rules == (MORE,)


def test_a_reference_to_nowhere_is_anything():
    (row,) = rows({"type": "object", "properties": {"n": {"$ref": "#/$defs/x/0/y"}}})
    assert row.kind == "anything"


NAMES = st.text(st.characters(codec="utf-8"), max_size=4)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "null", ["number", "boolean"]]),
        "enum": st.lists(st.none() | st.integers() | NAMES, min_size=1, max_size=3, unique_by=repr),
        "description": NAMES,
        "default": st.none() | NAMES,
        "minimum": st.integers(),
        "pattern": st.sampled_from(["a|b", "`", "\\|"]),
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/a"]),
    },
)
PARTS = st.recursive(
    LEAVES | st.booleans(),
    lambda part: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES | st.sampled_from("ab"), part, max_size=3),
            "additionalProperties": part,
            "items": part,
            "prefixItems": st.lists(part, min_size=1, max_size=2),
            "anyOf": st.lists(part, min_size=1, max_size=3),
            "allOf": st.lists(part, min_size=1, max_size=2),
            "title": NAMES,
        },
    ),
    max_leaves=12,
)
SCHEMAS = st.builds(
    lambda root, a, b: (root if isinstance(root, dict) else {}) | {"type": "object", "$defs": {"a": a, "b": b}},
    PARTS,
    PARTS,
    PARTS,
)


@given(SCHEMAS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_every_valid_schema_has_rows_without_a_stray_backtick(schema):
    try:
        Schema(schema)
    except InvalidRequestError:
        assume(False)
    found = rows(schema)
    assert len(found) <= MAX_ROWS + 1
    assert not any("`" in row.place for row in found)
    assert found == rows(schema)
