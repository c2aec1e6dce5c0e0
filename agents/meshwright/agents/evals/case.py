"""An eval set: one case a line, each a prompt and what has to be true of what becomes of it."""

import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.mistake import mistakes
from meshwright.registry.file import content
from meshwright.registry.schema import Schema

MAX_BYTES = 8 * 2**20
MAX_CASES = 1_000
MAX_DOCS_BYTES = 2**20
MOST_TOLD = 20
"""Mistakes that are told at once."""

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Pattern = Annotated[str, Field(min_length=1, max_length=1_000)]
Finish = Literal[
    "stop",
    "max_steps",
    "token_budget_exceeded",
    "cost_budget_exceeded",
    "deadline",
    "blocked",
    "error",
    "input_required",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExpectedCall(_Part):
    """A tool call that has to be made, or must not be.

    Attributes:
        tool: Name; `ask.NAME` for work that is handed on; a `*` at the end stands for anything.
        arguments: Values that the call's arguments hold among others.
        agent: Who makes it; empty: whoever.
    """

    tool: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,63}\*?$|^\*$")
    arguments: dict[str, Any] = {}
    agent: str = Field("", pattern=r"^([a-z][a-z0-9-]{0,62})?$")


class Checks(_Part):
    """What has to be true; everything that is given counts.

    Attributes:
        contains: Texts that the answer holds.
        lacks: Texts that it does not hold.
        matches: Regular expressions that are found in it.
        equals: The whole answer, white space around it apart.
        json_schema: `schema` in a set: JSON Schema 2020-12 of the answer, which then is JSON.
        calls: Calls that are made.
        no_calls: Calls that are not.
        finish: Why the task ends.
        max_steps: Rounds of the agent's own task at the most.
        max_tokens: Tokens of the task with its children at the most.
        judge: What a model has to find true of the answer.
    """

    contains: list[Text] = Field([], max_length=50)
    lacks: list[Text] = Field([], max_length=50)
    matches: list[Pattern] = Field([], max_length=50)
    equals: str | None = Field(None, max_length=100_000)
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    calls: list[ExpectedCall] = Field([], max_length=50)
    no_calls: list[ExpectedCall] = Field([], max_length=50)
    finish: Finish = "stop"
    max_steps: int | None = Field(None, ge=1, le=25)
    max_tokens: int | None = Field(None, ge=1)
    judge: str = Field("", max_length=10_000)

    @field_validator("matches")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            _compiled({"pattern": pattern})
        return patterns

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            _compiled(schema)
        return schema

    @model_validator(mode="after")
    def _checks_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to check: name at least one check")
        return self


class Case(_Part):
    """One line of a set.

    Attributes:
        id: Its name, once in a set.
        prompt: What the agent is asked.
        docs: What the researcher may search: texts by file name, or a folder beside the set; None: nothing.
        max_steps: Of the task, 1..25; 0: 10.
        token_budget: Of the task, 512..32768; 0: 8192.
        timeout_s: Of the task.
        checks: What has to be true.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    prompt: str = Field(min_length=1, max_length=200_000)
    docs: dict[str, str] | str | None = Field(None, max_length=1_000)
    max_steps: int = Field(0, ge=0, le=25)
    token_budget: int = Field(0, ge=0, le=32_768)
    timeout_s: float = Field(60.0, ge=1, le=600)
    checks: Checks

    @field_validator("docs")
    @classmethod
    def _stay_inside(cls, docs: dict[str, str] | str | None) -> dict[str, str] | str | None:
        names = [docs] if isinstance(docs, str) else list(docs or ())
        for name in names:
            path = PurePosixPath(name)
            is_up = ".." in path.parts and not isinstance(docs, str)
            if path.is_absolute() or is_up or not path.name or "\0" in name:
                raise ValueError(f"{name!r} is no relative path")
        if isinstance(docs, dict) and sum(map(len, docs.values())) > MAX_DOCS_BYTES:
            raise ValueError(f"the texts have more than {MAX_DOCS_BYTES} characters: name a folder")
        return docs


def read_set(path: Path) -> list[Case]:
    """Reads a set of JSON lines; empty lines are passed over.

    Raises:
        InvalidRequestError: It cannot be read, or is no set; names each line and field.
    """
    cases: list[Case] = []
    wrong: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            cases.append(Case.model_validate(_object(line)))
        except ValidationError as error:
            wrong |= {f"line {number}: {one.place or 'the case'}": one.words for one in mistakes(error, Case)}
        except (ValueError, RecursionError) as error:
            wrong[f"line {number}"] = f"is no JSON object: {error}"
    repeated = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    wrong |= {f"id {name}": "stands there more than once" for name in repeated}
    if not cases and not wrong:
        wrong["line 1"] = "there is no case in it"
    wrong |= {f"case {case.id}: docs": "is no folder" for case in cases if not _has_docs(case, path)}
    if wrong:
        told = "; ".join(f"{place}: {what}" for place, what in list(wrong.items())[:MOST_TOLD])
        raise InvalidRequestError(f"the eval set {path} is wrong: {told}", fields=wrong)
    return cases


def _lines(path: Path) -> list[str]:
    try:
        lines = content(path, MAX_BYTES, f"the eval set {path}").decode().splitlines()
    except SetupError as error:
        raise InvalidRequestError(error.message, fields={"set": f"a file of at most {MAX_BYTES} bytes"}) from None
    except UnicodeDecodeError:
        raise InvalidRequestError(f"the eval set {path} is no UTF-8 text", fields={"set": "UTF-8"}) from None
    if len(lines) > MAX_CASES:
        most = f"at most {MAX_CASES} lines"
        raise InvalidRequestError(f"the eval set {path} is too large: {most}", fields={"set": most})
    return lines


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("write {...}")  # noqa: TRY004 - told like what json says
    return value


def _has_docs(case: Case, path: Path) -> bool:
    return not isinstance(case.docs, str) or (path.parent / case.docs).is_dir()


def _compiled(schema: dict[str, Any]) -> Schema:
    try:
        return Schema(schema)
    except InvalidRequestError as error:
        raise ValueError("; ".join([error.message, *error.fields.values()])) from None
