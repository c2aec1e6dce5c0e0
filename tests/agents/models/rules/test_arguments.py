"""Arguments taken from the words of a prompt."""

from typing import Any

import pytest

from meshwright.agents.models.rules.arguments import Clues

TEXT, WHOLE, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
UNIT = {"enum": ["celsius", "fahrenheit"]}


def filled(task: str, *, optional: int = 0, **properties: Any) -> tuple[dict[str, Any], list[str]]:
    names = list(properties)
    required = names[: len(names) - optional]
    return Clues(task).arguments({"type": "object", "properties": properties, "required": required})


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("Echo 'hello there' to me", "hello there"),
        ('Say "it\'s fine" now', "it's fine"),
        ("Say “one two” now", "one two"),
        ("Run `ls -l`", "ls -l"),
        ("Echo: hello there", "hello there"),
        ("Fetch http://a.b/c at 10:30", "Fetch http://a.b/c at 10:30"),
        ("It's what I don't know", "It's what I don't know"),
    ],
)
def test_the_only_text_is_quoted_or_follows_a_colon_or_is_the_prompt(task: str, expected: str) -> None:
    assert filled(task, text=TEXT) == ({"text": expected}, [])


def test_several_texts_need_a_name_or_quotes_each() -> None:
    assert filled("Send to: Ada, body: See you", to=TEXT, body=TEXT) == ({"to": "Ada", "body": "See you"}, [])
    assert filled("Replace 'a' by 'b'", old=TEXT, new=TEXT) == ({"old": "a", "new": "b"}, [])
    assert filled("Send it", to=TEXT, body=TEXT) == ({}, ["to", "body"])


def test_numbers_come_in_order_and_by_name() -> None:
    assert filled("Add 3 and 4.5", a=NUMBER, b=NUMBER) == ({"a": 3, "b": 4.5}, [])
    assert filled("Roll 2 dice with 20 sides", sides=WHOLE, times=WHOLE) == ({"sides": 20, "times": 2}, [])
    assert filled("Subtract 1,500 from -2", a=WHOLE, b=WHOLE) == ({"a": 1500, "b": -2}, [])
    assert filled("Add b=1 to a=2", a=WHOLE, b=WHOLE) == ({"a": 2, "b": 1}, [])
    assert filled("Add 3", a=NUMBER, b=NUMBER) == ({"a": 3}, ["b"])


def test_a_number_must_fit_its_type_and_bounds() -> None:
    assert filled("Take 2.5 or 7", n=WHOLE) == ({"n": 7}, [])
    assert filled("Take 300", n={"type": "integer", "maximum": 100}) == ({}, ["n"])


def test_numbers_in_quotes_are_text() -> None:
    assert filled("Repeat '7 dwarfs' 3 times", text=TEXT, count=WHOLE) == ({"text": "7 dwarfs", "count": 3}, [])


def test_a_choice_is_made_by_its_word() -> None:
    assert filled("Berlin in Fahrenheit please", unit=UNIT) == ({"unit": "fahrenheit"}, [])
    assert filled("Berlin", unit=UNIT) == ({}, ["unit"])
    assert filled("use dry run", mode={"enum": ["wet_run", "dry_run"]}) == ({"mode": "dry_run"}, [])


def test_yes_and_no_are_taken_only_by_name() -> None:
    assert filled("Delete it, force: yes", force=FLAG) == ({"force": True}, [])
    assert filled("Delete it, force=false", force=FLAG) == ({"force": False}, [])
    assert filled("Delete it by force", force=FLAG) == ({}, ["force"])


def test_lists_take_all_numbers_or_the_listed_texts() -> None:
    numbers, texts = {"type": "array", "items": NUMBER}, {"type": "array", "items": TEXT}
    assert filled("Average 3, 4 and 5.5", values=numbers) == ({"values": [3, 4, 5.5]}, [])
    assert filled("Sort: pears, apples and figs", items=texts) == ({"items": ["pears", "apples", "figs"]}, [])
    assert filled("Sort 'b' and 'a'", items=texts) == ({"items": ["b", "a"]}, [])
    assert filled("Sort", items=texts) == ({}, ["items"])


def test_a_json_object_in_the_prompt_is_taken_as_it_is() -> None:
    task = 'Add {"a": 1, "b": {"c": 2}, "other": 3} now'
    assert filled(task, a=WHOLE, b={"type": "object"}) == ({"a": 1, "b": {"c": 2}}, [])
    assert filled("Add {a} 5", a=WHOLE) == ({"a": 5}, [])


def test_what_is_optional_is_filled_only_when_it_is_named() -> None:
    assert filled("Roll 3", optional=1, sides=WHOLE) == ({}, [])
    assert filled("Roll a die with 20 sides", optional=1, sides=WHOLE) == ({"sides": 20}, [])
    assert filled("Rome in celsius", optional=1, city=TEXT, unit=UNIT) == (
        {"city": "Rome in celsius", "unit": "celsius"},
        [],
    )


def test_defaults_and_constants_stand_for_what_is_missing() -> None:
    assert filled("Go", n={"type": "integer", "default": 5}, kind={"const": "x"}) == ({"n": 5, "kind": "x"}, [])


def test_references_and_nullable_types_are_followed() -> None:
    schema = {
        "type": "object",
        "$defs": {"Unit": {"enum": ["km", "miles"]}},
        "properties": {
            "unit": {"$ref": "#/$defs/Unit"},
            "far": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "near": {"type": ["number", "null"]},
        },
        "required": ["unit", "far", "near"],
    }
    assert Clues("Convert 5 and 6 to miles").arguments(schema) == ({"unit": "miles", "far": 5, "near": 6}, [])


def test_a_tool_without_parameters_needs_nothing() -> None:
    assert Clues("What time is it?").arguments({"type": "object"}) == ({}, [])
