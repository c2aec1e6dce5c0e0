"""Tools that read a SQLite file by declared statements; nobody else's SQL ever runs."""

import base64
import json
import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field

from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    InvalidRequestError,
    SetupError,
    ToolFailedError,
)
from meshwright.core.ids import Form
from meshwright.registry.backends.declaration import (
    DeclaredTool,
    JsonSchema,
    Options,
    Surroundings,
    ToolOptions,
    check_no_schemas,
    contract_parts,
    located,
)
from meshwright.registry.threads import run_in_thread

ParameterType = Literal["string", "integer", "number", "boolean"]
NAME = Form(re.compile(r"[a-z][a-z0-9_]{0,62}"), "1 to 63 small letters, digits or _, a letter first")
Name = Annotated[str, AfterValidator(NAME.validated)]
OUTPUT_SCHEMA: JsonSchema = {
    "type": "object",
    "properties": {
        "rows": {"type": "array", "items": {"type": "object"}},
        "row_count": {"type": "integer"},
        "truncated": {"type": "boolean", "description": "There is more: ask for less"},
    },
    "required": ["rows", "row_count", "truncated"],
    "additionalProperties": False,
}
MAX_SQL = 16 * 2**10
MAX_VALUE_BYTES = 1 * 2**20
"""Of one value that SQLite makes on its way."""
BUSY_S = 1.0
"""How long a writer in another process is waited for."""
TICK = 10_000
"""Instructions of SQLite's machine between two looks at the clock."""
READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
READS = re.compile(r"\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
ACTIONS = {
    getattr(sqlite3, name): name.removeprefix("SQLITE_").replace("_", " ")
    for name in (
        "SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE", "SQLITE_PRAGMA", "SQLITE_ATTACH", "SQLITE_DETACH",
        "SQLITE_TRANSACTION", "SQLITE_SAVEPOINT", "SQLITE_CREATE_TABLE", "SQLITE_CREATE_INDEX", "SQLITE_CREATE_VIEW",
        "SQLITE_CREATE_TRIGGER", "SQLITE_CREATE_TEMP_TABLE", "SQLITE_CREATE_VTABLE", "SQLITE_DROP_TABLE",
        "SQLITE_DROP_INDEX", "SQLITE_DROP_VIEW", "SQLITE_DROP_TRIGGER", "SQLITE_ALTER_TABLE", "SQLITE_ANALYZE",
        "SQLITE_REINDEX",
    )
}  # fmt: skip


class ParameterOptions(Options):
    """A parameter of a statement: a part of JSON Schema."""

    type: ParameterType
    optional: bool = Field(default=False, description="Whether it may be left out: NULL stands in for it")
    description: str = Field(default="", max_length=500)
    enum: list[str | int | float] | None = Field(default=None, min_length=1, max_length=100)
    minimum: float | None = None
    maximum: float | None = None
    minLength: int | None = Field(default=None, ge=0)  # noqa: N815 - JSON Schema's name
    maxLength: int | None = Field(default=None, ge=0)  # noqa: N815
    pattern: str | None = Field(default=None, max_length=500)
    format: str | None = Field(default=None, max_length=40)


class StatementOptions(Options):
    """A statement that may be run."""

    sql: str = Field(min_length=1, max_length=MAX_SQL, description="One SELECT with :name for its parameters")
    description: str = Field(min_length=1, max_length=1_000, description="What models choose it by")
    parameters: dict[Name, ParameterOptions] = Field(default_factory=dict, max_length=64)


class SqlOptions(Options):
    """What a declaration says of a database."""

    database: str = Field(min_length=1, description="SQLite file, beside the declarations or absolute")
    statements: dict[Name, StatementOptions] = Field(min_length=1, max_length=64, description="By name")
    max_rows: int = Field(default=200, ge=1, le=10_000, description="Rows of a result")
    max_bytes: int = Field(default=256 * 2**10, ge=1_024, le=1 * 2**20 - 1_024, description="Bytes of a result")


@dataclass(frozen=True, slots=True)
class Query:
    """A statement that is run once.

    Attributes:
        sql: As declared.
        values: Of its parameters.
        ends: Until when, on the monotonic clock.
        is_given_up: Set when nobody waits any more.
    """

    sql: str
    values: dict[str, Any]
    ends: float
    is_given_up: threading.Event

    def is_over(self) -> bool:
        """Whether it is to be interrupted."""
        return self.is_given_up.is_set() or time.monotonic() > self.ends


@dataclass(frozen=True, kw_only=True)
class SqlTool(DeclaredTool):
    """A tool that runs one of its statements."""

    database: Path
    options: SqlOptions = field(repr=False)

    @property
    def is_threaded(self) -> bool:
        """SQLite blocks."""
        return True

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Runs a statement; returns `{"rows": [...], "row_count": n, "truncated": ...}`.

        Raises:
            InvalidRequestError: A parameter is beyond what the database takes.
            DeadlineExceededError: The time is over; the statement was interrupted.
            BackendUnavailableError: The database is locked, or not there at the moment.
            ToolFailedError: The statement failed.
        """
        statement = self.options.statements[arguments["statement"]]
        given = arguments.get("parameters", {})
        values = {name: given.get(name) for name in statement.parameters}
        query = Query(statement.sql, values, time.monotonic() + self.time_for_call_s(), threading.Event())
        try:
            return await run_in_thread(lambda: self._answered(query))
        except (OverflowError, ValueError):
            problem = {"arguments/parameters": "integers have at most 64 bits, texts are Unicode"}
            raise InvalidRequestError(f"{self.name}: a parameter cannot be stored", fields=problem) from None
        except sqlite3.Error as error:
            raise self._failure(error, query) from None
        finally:
            query.is_given_up.set()

    def _answered(self, query: Query) -> dict[str, Any]:
        with closing(opened(self.database)) as connection:
            connection.set_progress_handler(query.is_over, TICK)
            cursor = connection.execute(query.sql, query.values)
            names = unique(column[0] for column in cursor.description)
            rows: list[dict[str, Any]] = []
            size = 0
            for row in cursor:
                one = dict(zip(names, map(as_json, row), strict=True))
                size += weight(one)
                if len(rows) == self.options.max_rows or size > self.options.max_bytes:
                    return {"rows": rows, "row_count": len(rows), "truncated": True}
                rows.append(one)
        return {"rows": rows, "row_count": len(rows), "truncated": False}

    def _failure(self, error: sqlite3.Error, query: Query) -> Exception:
        code = getattr(error, "sqlite_errorname", "")
        if query.is_over() or code == "SQLITE_INTERRUPT":
            return DeadlineExceededError(f"{self.name} took longer than {self.timeout_s:g} s: ask for less")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN")):
            return BackendUnavailableError(f"{self.name}: the database cannot be read at the moment: try again")
        return ToolFailedError(f"{self.name}: {' '.join(str(error).split())[:300]}")


def sql_tool(tool: ToolOptions, options: SqlOptions, surroundings: Surroundings) -> SqlTool:
    """Makes a tool of a declaration; every statement is prepared, and none that could write is taken.

    Raises:
        SetupError: Something in it is wrong; says which field and why.
    """
    check_no_schemas(tool, "the statements")
    if tool.effect not in (None, "pure"):
        raise SetupError(f"effect: {tool.effect} does not fit: statements only read, which is pure")
    database = (surroundings.folder / options.database).resolve()
    if not database.is_file():
        raise SetupError(f"backend.sql.database: {options.database} is no file")
    for name, statement in options.statements.items():
        located(f"backend.sql.statements.{name}", check_statement, statement, database)
    parts = contract_parts(tool, "pure", input_schema(options), OUTPUT_SCHEMA)
    return SqlTool(**parts, database=database, options=options)


def opened(database: Path) -> sqlite3.Connection:
    """Opens a database that can only be read, by a connection of the calling thread."""
    uri = f"file:{quote(str(database))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.set_authorizer(authorized)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def authorized(action: int, *place: str | None) -> int:
    """Lets reading pass, and nothing else; the second part of a function's place is its name."""
    is_refused = action == sqlite3.SQLITE_FUNCTION and (place[1] or "").lower() in REFUSED_FUNCTIONS
    return sqlite3.SQLITE_OK if action in READING and not is_refused else sqlite3.SQLITE_DENY


class Used(dict[str, None]):
    """Parameters that SQLite asks for while it binds them."""

    def __missing__(self, name: str) -> None:
        """Notes the parameter."""
        self[name] = None


def check_statement(statement: StatementOptions, database: Path) -> None:
    """Compiles a statement without running it.

    Raises:
        SetupError: It is none, more than one, does more than read, or uses other parameters than are declared.
    """
    if not READS.match(statement.sql):
        raise SetupError(f"sql: {statement.sql.split()[0][:40]} is refused: SELECT, WITH and VALUES only read")
    refused: list[str] = []

    def noting(action: int, *place: Any) -> int:
        answer = authorized(action, *place)
        if answer != sqlite3.SQLITE_OK:
            refused.append(ACTIONS.get(action) or place[1] or place[0] or "it")
        return answer

    used = Used()
    try:
        with closing(opened(database)) as connection:
            connection.set_authorizer(noting)
            connection.execute(f"EXPLAIN {statement.sql}", used)
    except (sqlite3.Error, ValueError) as error:
        why = f"{refused[0]} is refused: statements only read" if refused else " ".join(str(error).split())[:300]
        raise SetupError(f"sql: {why}") from None
    if unlike := sorted(used.keys() ^ statement.parameters.keys()):
        problem = "is used, but not declared" if unlike[0] in used else "is declared, but not used"
        raise SetupError(f"parameters.{unlike[0]}: {problem}")


def input_schema(options: SqlOptions) -> JsonSchema:
    """Builds the schema of the arguments: a statement's name, and what that statement takes."""
    named = [f"{name}: {' '.join(one.description.split())}" for name, one in options.statements.items()]
    return {
        "type": "object",
        "properties": {
            "statement": {"enum": list(options.statements), "description": "; ".join(named)},
            "parameters": {"type": "object"},
        },
        "required": ["statement"],
        "additionalProperties": False,
        "allOf": [taken(name, one) for name, one in options.statements.items()],
    }


def taken(name: str, statement: StatementOptions) -> JsonSchema:
    """Builds the rule of what a statement takes."""
    declared = statement.parameters
    needed = [parameter for parameter, one in declared.items() if not one.optional]
    parameters = {
        "type": "object",
        "properties": {
            parameter: one.model_dump(exclude_defaults=True, exclude={"optional"})
            for parameter, one in declared.items()
        },
        "required": needed,
        "additionalProperties": False,
    }
    then: JsonSchema = {"properties": {"parameters": parameters}, "required": ["parameters"] if needed else []}
    return {"if": {"properties": {"statement": {"const": name}}}, "then": then}


def unique(names: Iterable[str]) -> list[str]:
    """Returns column names so that no two are the same: the second `id` is `id_2`."""
    found: dict[str, None] = {}
    for name in names:
        spelled, number = name, 2
        while spelled in found:
            spelled, number = f"{name}_{number}", number + 1
        found[spelled] = None
    return list(found)


def as_json(value: Any) -> Any:
    """Writes a value of SQLite as JSON: bytes in Base64, infinity as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def weight(row: dict[str, Any]) -> int:
    """Returns the bytes of a row as JSON."""
    return len(json.dumps(row, ensure_ascii=False).encode())
