"""What commands print: data on stdout as a table, JSON or lines of JSON."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from meshwright.core.canonical import LARGEST

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a cursor, colour a terminal or turn text around: what others wrote shall do none of that."""
PIPED = 120
"""Characters in a line of a table that is no terminal's, unless ids and the like need more."""
PROSE, NARROWEST = 40, 24
"""A cell of words that is longer than the first is wrapped where the table is too wide, down to the second."""
GAP = 2
DOLLAR = 1_000_000


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def as_json(message: Message, indent: int | None = 2) -> str:
    """Writes a message exactly as the edge does."""
    told = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(without_points(told), indent=indent)


def without_points(value: Any) -> Any:
    """Returns JSON data with whole numbers as integers, where a double holds them exactly: 1, not 1.0."""
    if isinstance(value, dict):
        return {name: without_points(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_points(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value


def harmless(text: str) -> str:
    """Returns text with what a terminal would obey spelled out, an escape as a backslash and `x1b`."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def dollars(micros: int) -> str:
    """Writes an amount of millionths of a US dollar in dollars."""
    return f"{micros // DOLLAR}.{micros % DOLLAR:06d}"


def show(text: str) -> None:
    """Prints one piece of data; as it is where a program reads it."""
    sys.stdout.write((harmless(text) if sys.stdout.isatty() else text) + "\n")
    sys.stdout.flush()


def show_message(message: Message, form: Format) -> None:
    """Prints a message as JSON, on one line where lines are asked for."""
    show(as_json(message, 2 if form is Format.JSON else None))


def show_messages(messages: Sequence[Message], form: Format) -> None:
    """Prints messages as a JSON array, or one a line."""
    if form is Format.JSONL:
        for message in messages:
            show(as_json(message, None))
    else:
        show("[" + ",\n".join(as_json(message) for message in messages) + "]")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "nothing to list") -> None:
    """Prints a table; words are wrapped to fit the terminal, elsewhere `PIPED`, and ids stay whole.

    Args:
        columns: What stands above them.
        rows: A cell a column.
        empty: What people are told on stderr where there is no row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[harmless(cell) for cell in row] for row in rows]
    console = Console()
    widths = fitted(columns, cells, console.width if console.is_terminal else PIPED)
    console = Console(width=sum(widths) + GAP * len(widths))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)
    if not cells:
        sys.stderr.write(f"{empty}\n")


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], line: int) -> list[int]:
    """Returns how wide columns are in a line of so many characters: the widest ones of words give way."""
    from rich.cells import cell_len

    widths, words = [cell_len(column) for column in columns], set[int]()
    for row in rows:
        for index, cell in enumerate(row):
            widest = max(map(cell_len, cell.splitlines()), default=0)
            widths[index] = max(widths[index], widest)
            if widest > PROSE and " " in cell:
                words.add(index)
    while (sum(widths) + GAP * (len(widths) - 1)) > line:
        widest_index = max(words, key=widths.__getitem__, default=None)
        if widest_index is None or widths[widest_index] <= NARROWEST:
            break
        widths[widest_index] -= 1
    return widths
