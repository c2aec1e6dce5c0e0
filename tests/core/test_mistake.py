"""What is wrong with what somebody wrote: our words, and the names that are known."""

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from meshwright.core.mistake import mistakes


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Leaf(Part):
    colour: str = "green"
    size: int = Field(1, gt=0)
    kind: str = Field("leaf", alias="class")

    @field_validator("colour")
    @classmethod
    def _grows(cls, colour: str) -> str:
        if colour == "blue":
            raise ValueError("no leaf is blue")
        return colour


class Tree(Part):
    name: str
    leaves: list[Leaf] = Field([], max_length=2)
    fruit: dict[str, Annotated[Leaf, "ripe"]] | None = None


@pytest.mark.parametrize(
    ("value", "place", "words"),
    [
        ({}, "name", "is required"),
        ({"name": 5}, "name", "must be a valid string"),
        ({"name": "x", "leafs": []}, "leafs", "is not known here: write one of fruit, leaves, name"),
        ({"name": "x", "leaves": [{"size": 0}]}, "leaves.0.size", "must be greater than 0"),
        (
            {"name": "x", "leaves": [{"hue": 1}]},
            "leaves.0.hue",
            "is not known here: write one of class, colour, size",
        ),
        ({"name": "x", "fruit": {"a": {"b": 1}}}, "fruit.a.b", "is not known here: write one of class, colour, size"),
        ({"name": "x", "leaves": [{"colour": "blue"}]}, "leaves.0.colour", "no leaf is blue"),
        ({"name": "x", "leaves": [{}] * 3}, "leaves", "must have at most 2 items after validation, not 3"),
    ],
)
def test_a_mistake_is_told_in_our_words(value, place, words):
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(value)
    (mistake,) = mistakes(caught.value, Tree)
    assert (mistake.place, mistake.words) == (place, words)
