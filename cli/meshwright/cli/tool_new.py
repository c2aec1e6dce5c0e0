"""`meshwright tool new`: a first version of a tool, with its test."""

import builtins
import keyword
from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.output import show
from meshwright.cli.tool_kinds import TEMPLATES, Kind
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.ids import TOOL_NAME

LONGEST_FUNCTION = 32
"""Characters of the function's name: then every line fits."""
TAKEN = frozenset({"tool", "pytest", "pytestmark", "bench", "call", *keyword.kwlist, *dir(builtins)})
"""Names that mean something else in the two files."""


def new(
    name: Annotated[str, typer.Argument(help="The tool's dotted name: texts.count")],
    kind: Annotated[Kind, typer.Option(help="What is behind it: your own code, or a service that is there")] = (
        Kind.PYTHON
    ),
    folder: Annotated[Path, typer.Option(help="Where the files go; made where it is not there")] = Path(),
) -> None:
    """Writes a small tool and its test, which pass as they are; never writes over a file."""
    if not TOOL_NAME.fullmatch(name):
        forms = "lower-case words joined by dots, at most 64 characters, as in texts.count"
        raise InvalidRequestError(f"{name!r} names no tool: write {forms}", fields={"name": forms})
    module = f"{name.replace('.', '_')}_tool"  # never the name of a module that is there already
    words = {"name": name, "module": module, "function": function_name(name)}
    ending, tool, test = TEMPLATES[kind]
    files = {folder / f"{module}{ending}": tool, folder / f"test_{module}.py": test}
    write({path: template.substitute(words) for path, template in files.items()})
    for path in files:
        show(str(path))
    written, tested = files
    typer.echo(f"test it with `python -m pytest {tested}`, serve it with `meshwright tool serve {written}`", err=True)


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
