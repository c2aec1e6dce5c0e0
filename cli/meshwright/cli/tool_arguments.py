"""Arguments and results on the command line: where they are read from, how they are shown."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from meshwright.core.canonical import from_value
from meshwright.core.errors import InvalidRequestError
from meshwright.registry.arguments import MAX_BYTES, read_arguments
from meshwright.registry.file import content


def read(argument: str) -> dict[str, Any]:
    """Reads arguments as they stand in a command: JSON, `@FILE` that holds it, or `-` for standard input.

    Raises:
        SetupError: The file cannot be read, or is too large.
        InvalidRequestError: It holds no arguments.
    """
    if argument == "-":
        return read_arguments(decoded(sys.stdin.buffer.read(MAX_BYTES + 1)))
    if argument.startswith("@"):
        return read_arguments(decoded(content(Path(argument[1:]), MAX_BYTES, argument[1:] or argument)))
    return read_arguments(argument)


def decoded(text: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        InvalidRequestError: It is something else.
    """
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("the arguments cannot be read: they are no UTF-8") from None


@contextlib.contextmanager
def violations_listed() -> Iterator[None]:
    """Tells what is wrong with arguments one by one.

    Raises:
        InvalidRequestError: The arguments do not fit; a line each, with its JSON Pointer.
    """
    try:
        yield
    except InvalidRequestError as error:
        places = {field.removeprefix("arguments"): said for field, said in error.fields.items() if is_place(field)}
        if not places:
            raise
        lines = [f"  {pointer or '/'}: {said}" for pointer, said in places.items()]
        raise InvalidRequestError("\n".join(["the arguments do not fit", *lines]), fields=error.fields) from None


def is_place(field: str) -> bool:
    """Whether a field of an error is a place in the arguments."""
    return field == "arguments" or field.startswith("arguments/")


def numbers(result: Value) -> Any:
    """Returns a result with its integers as integers, where they are exact."""
    try:
        return from_value(result, "result")
    except InvalidRequestError:
        return json_format.MessageToDict(result)
