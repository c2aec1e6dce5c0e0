"""Which schemas providers can enforce."""

from typing import Any

import pytest

from meshwright.agents.models.strictness import DEEPEST, is_closed, is_strict

TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def nested(levels: int) -> dict[str, Any]:
    schema = TEXT
    for _ in range(levels):
        schema = closed(inner=schema)
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        closed(city=TEXT),
        closed(),
        closed(cities={"type": "array", "items": closed(name=TEXT), "minItems": 1}),
        closed(either={"anyOf": [closed(a=TEXT), {"type": "null"}]}),
        closed(node={"$ref": "#/$defs/node"}) | {"$defs": {"node": closed(name=TEXT)}},
        closed(kind={"enum": ["a", "b"], "description": "Which?"}, size={"type": "number", "minimum": 0}),
        nested(DEEPEST),
    ],
)
def test_a_schema_of_closed_objects_is_strict_and_closed(schema: dict[str, Any]) -> None:
    assert is_strict(schema)
    assert is_closed(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"city": TEXT, "land": TEXT}, "required": ["city"]},
        closed(city=TEXT | {"maxLength": 9}),
        closed(city=TEXT | {"default": "Rome"}),
        closed(inner={"type": "object", "properties": {"a": TEXT}}),
    ],
)
def test_a_schema_with_optional_members_or_lengths_is_closed_but_not_strict(schema: dict[str, Any]) -> None:
    assert not is_strict(schema)
    assert is_closed(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
        closed(a={"type": "object", "patternProperties": {"^x": TEXT}}),
        closed(a={"allOf": [TEXT]}),
        closed(a={}),
        closed(a=True),
        {"anyOf": [closed(a=TEXT)]},
        {"type": "object", "properties": 7},
        {"type": "object", "anyOf": 7, "properties": {}},
        nested(DEEPEST + 1),
        nested(5_000),
    ],
)
def test_an_open_or_endless_schema_is_neither(schema: dict[str, Any]) -> None:
    assert not is_closed(schema)
    assert not is_strict(schema) or schema == closed(a={})


def test_a_choice_of_types_can_be_enforced_by_the_one_and_not_by_the_other() -> None:
    schema = closed(a={"type": ["string", "null"]})
    assert is_strict(schema)
    assert not is_closed(schema)


def test_a_schema_with_too_many_choices_is_not_strict() -> None:
    assert not is_strict(closed(a={"enum": list(range(1_001))}))
