"""What pydantic finds wrong with what somebody wrote, in our words: the one place that knows pydantic's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

MUST = re.compile(r"^[A-Z]\w* should ")
PREFIX = "Value error, "
MOST_NAMES = 30


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        location: Names and indices that lead to it, from the outermost.
        words: What is wrong there: "is required", "must be greater than 0", ...
    """

    location: tuple[str | int, ...]
    words: str

    @property
    def place(self) -> str:
        """The location with dots between its parts; empty: the whole."""
        return ".".join(map(str, self.location))


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Lists what is wrong with a value, at least one mistake.

    Args:
        error: As pydantic raised it.
        model: What the value was read as: says which names are known where one is not.
    """
    found = error.errors(include_url=False, include_input=False)
    return [Mistake(one["loc"], words(one["type"], one["msg"], one["loc"], model)) for one in found]


def words(kind: str, message: str, location: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """Writes one of pydantic's messages as ours."""
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        names = sorted(known(location[:-1], model))[:MOST_NAMES]
        return f"is not known here: write one of {', '.join(names)}" if names else "is not known here"
    return MUST.sub("must ", message.removeprefix(PREFIX))


def known(location: tuple[str | int, ...], model: type[BaseModel]) -> set[str]:
    """Returns the names that a model has at a place inside of it; empty: nobody knows."""
    here = {model}
    for part in location:
        fields = [field for one in here for name, field in one.model_fields.items() if part in (name, field.alias)]
        if fields:  # else it is an index, the name of an entry, or what pydantic calls a branch
            here = {inner for field in fields for inner in models_in(field.annotation)}
    return {field.alias or name for one in here for name, field in one.model_fields.items()}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the models that a type is made of: of `list[X] | None`, X."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)
