"""`meshwright tool new`: a first version of a tool, with its test."""

import builtins
import keyword
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from meshwright.cli.output import show
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.ids import TOOL_NAME

LONGEST_FUNCTION = 32
"""Characters of the function's name: then every line fits."""
TAKEN = frozenset({"tool", "pytest", "pytestmark", "bench", "call", *keyword.kwlist, *dir(builtins)})
"""Names that mean something else in the two files."""

TOOL = Template('''"""The tool $name."""

from typing import Annotated

from meshwright.registry import tool
from pydantic import BaseModel, Field

Text = Annotated[str, Field(max_length=100_000, description="What is counted")]
Most = Annotated[int, Field(ge=1, description="Words that a short text may have")]


class Count(BaseModel):
    """How long a text is."""

    words: Annotated[int, Field(ge=0)]
    is_long: bool = Field(description="It has more words than a short one")


@tool(
    name="$name",
    version="1.0.0",  # raise it with every change of the contract
    effect="pure",  # it only reads; else "idempotent" or "non_idempotent"
    timeout_s=5,
)
def $function(text: Text, most: Most = 500) -> Count:
    """Counts words. Use it before a text goes where only a short one fits."""
    words = len(text.split())
    return Count(words=words, is_long=words > most)
''')

TEST = Template('''"""Tests of $name, called as in a mesh."""

import pytest
from meshwright.registry.testing import ToolBench

from $module import $function

pytestmark = pytest.mark.asyncio


async def test_words_are_counted() -> None:
    async with ToolBench($function) as bench:
        call = await bench.call({"text": "to be or not to be", "most": 5})
    assert call.result == {"words": 6, "is_long": True}


async def test_a_model_reads_what_is_wrong_with_its_arguments() -> None:
    async with ToolBench($function) as bench:
        call = await bench.call({"text": "to be", "most": 0})
    assert "/most: 0 is less than the minimum of 1" in call.failure
''')


def new(
    name: Annotated[str, typer.Argument(help="The tool's dotted name: texts.count")],
    folder: Annotated[Path, typer.Option(help="Where the files go; made where it is not there")] = Path(),
) -> None:
    """Writes a small tool and its test, which pass as they are; never writes over a file."""
    if not TOOL_NAME.fullmatch(name):
        forms = "lower-case words joined by dots, at most 64 characters, as in texts.count"
        raise InvalidRequestError(f"{name!r} names no tool: write {forms}", fields={"name": forms})
    module = f"{name.replace('.', '_')}_tool"  # never the name of a module that is there already
    words = {"name": name, "module": module, "function": function_name(name)}
    files = {folder / f"{module}.py": TOOL, folder / f"test_{module}.py": TEST}
    write({path: template.substitute(words) for path, template in files.items()})
    for path in files:
        show(str(path))
    tool, test = files
    typer.echo(f"test it with `pytest {test}`, serve it with `meshwright tool serve {tool}`", err=True)


def function_name(name: str) -> str:
    """Names the function of a tool by the last word of its name."""
    last = name.rpartition(".")[2][:LONGEST_FUNCTION]
    return f"{last}_" if last in TAKEN else last


def write(texts: dict[Path, str]) -> None:
    """Writes new files, all of them or none.

    Raises:
        SetupError: One is there already, or cannot be written.
    """
    written: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise SetupError(f"{error.filename} is there already: choose another name, or another --folder") from None
        raise SetupError(f"{error.filename} cannot be written: {error.strerror}") from None
