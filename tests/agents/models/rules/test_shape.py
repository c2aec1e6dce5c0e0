"""Words put into the one text that a schema asks for."""

import json
from typing import Any

import pytest

from meshwright.agents.models.rules.shape import shaped

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"answer": TEXT}, "required": ["answer"], "additionalProperties": False},
        {"type": "object", "properties": {"answer": TEXT}},
        {"type": "object", "properties": {"answer": TEXT, "score": {"type": "number"}}, "required": ["answer"]},
    ],
)
def test_one_text_takes_the_words(schema: dict[str, Any]) -> None:
    assert json.loads(shaped('It says "größer".\n', schema)) == {"answer": 'It says "größer".\n'}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]},
        {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": TEXT | {"maxLength": 3}}, "required": ["a"]},
        {"type": "object", "properties": {"a": TEXT | {"enum": ["yes", "no"]}}, "required": ["a"]},
        {"type": "nothing", "properties": {"a": TEXT}},
    ],
)
def test_nothing_is_made_up(schema: dict[str, Any]) -> None:
    assert shaped("Words.", schema) == "Words."
