"""Tools that read a SQLite file: declared statements only, bounded in time, rows and bytes."""

import asyncio
import json
import sqlite3
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshwright.core.canonical import from_struct
from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    InvalidRequestError,
    SetupError,
    ToolFailedError,
)
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_PURE
from meshwright.registry.backends.sql import opened, unique
from meshwright.registry.schema import Schema

WORDS = [
    "SELECT",
    "WITH",
    "VALUES",
    "(",
    ")",
    "1",
    ",",
    ";",
    "customer",
    "FROM",
    "DELETE",
    "INSERT",
    "INTO",
    "PRAGMA",
    "user_version",
    "=",
    "ATTACH",
    "'x'",
    "AS",
    "UPDATE",
    "SET",
    "name",
    "RETURNING",
    "*",
    "--",
    "/*",
    "*/",
]
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {what} FROM n"
CITY = {"city": {"type": "string", "description": "Exact name"}}


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "shop?& a.db"  # needs quoting in a URI
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT, photo BLOB, balance REAL);
        INSERT INTO customer VALUES (1, 'Ada', 'Bonn', x'00ff', 1.5), (2, 'Bob', 'Bonn', NULL, -2);
        INSERT INTO customer VALUES (3, 'Eve', 'Köln', NULL, 9e999);
        CREATE VIEW in_bonn AS SELECT name FROM customer WHERE city = 'Bonn';
        """
    )
    connection.close()
    return path


@pytest.fixture
def sql(declared, database):
    """Makes the tool of a statement: `sql("SELECT 1")`, whose name is `it`."""

    def make(text, *, parameters=None, timeout_s=5.0, **fields):
        statement = {"sql": text, "description": "Reads.", "parameters": parameters or {}}
        outer = {name: fields.pop(name) for name in ("effect", "input_schema") if name in fields}
        options = {"database": database.name, "statements": {"it": statement}} | fields
        (tool,) = declared({"sql": options}, name="sql.query", timeout_s=timeout_s, **outer)
        return tool

    return make


async def it(tool, **parameters):
    return await tool.run({"statement": "it", "parameters": parameters})


def is_reading():
    """Whether a thread of a tool is at work."""
    return any(thread.name == "tool" for thread in threading.enumerate())


async def test_rows_come_back_as_objects(sql):
    tool = sql("SELECT * FROM customer WHERE city = :city ORDER BY id;", parameters=CITY)
    rows = [
        {"id": 1, "name": "Ada", "city": "Bonn", "photo": "AP8=", "balance": 1.5},
        {"id": 2, "name": "Bob", "city": "Bonn", "photo": None, "balance": -2.0},
    ]
    assert await it(tool, city="Bonn") == {"rows": rows, "row_count": 2, "truncated": False}
    assert (await it(tool, city="' OR 1=1 --"))["rows"] == []
    assert tool.contract().effect == EFFECT_PURE


async def test_views_comments_values_and_infinity_are_read(sql):
    assert (await it(sql("SELECT name FROM in_bonn ORDER BY 1")))["row_count"] == 2
    assert (await it(sql("VALUES (1), (2) -- two")))["rows"] == [{"column1": 1}, {"column1": 2}]
    assert (await it(sql("with a as (select balance from customer where id = 3) select * from a")))["rows"] == [
        {"balance": "inf"}
    ]


async def test_columns_of_one_name_stay_apart(sql):
    tool = sql("SELECT a.id, b.id, a.id AS id_2 FROM customer a JOIN customer b ON b.id = a.id + 1 LIMIT 1")
    assert (await it(tool))["rows"] == [{"id": 1, "id_2": 2, "id_2_2": 1}]


@given(st.lists(st.sampled_from(["a", "a_2", "a_2_2", "b", ""]), max_size=8))
def test_names_of_columns_are_unique(names):
    assert len(set(unique(names))) == len(names)


async def test_parameters_have_types_and_optional_ones_are_null(sql):
    parameters = CITY | {"least": {"type": "integer", "minimum": 0, "optional": True}}
    tool = sql("SELECT name FROM customer WHERE city = :city AND id >= coalesce(:least, 0)", parameters=parameters)
    schema = Schema(from_struct(tool.contract().input_schema, "input_schema"))
    assert (await it(tool, city="Bonn", least=2))["rows"] == [{"name": "Bob"}]
    assert (await it(tool, city="Bonn"))["row_count"] == 2
    assert schema.violations({"statement": "it", "parameters": {"city": "Bonn", "least": 2}}) == []
    for wrong in ({}, {"city": 5}, {"city": "x", "least": -1}, {"city": "x", "least": "1"}, {"city": "x", "more": 1}):
        assert schema.violations({"statement": "it", "parameters": wrong})
    for wrong in ({"statement": "it"}, {"statement": "other", "parameters": {}}, {"sql": "SELECT 1"}):
        assert schema.violations(wrong)


async def test_a_number_that_no_database_takes_is_an_invalid_request(sql):
    tool = sql("SELECT :n AS n", parameters={"n": {"type": "integer"}})
    with pytest.raises(InvalidRequestError, match="cannot be stored"):
        await it(tool, n=2**70)
    assert (await it(tool, n=2**62))["rows"] == [{"n": 2**62}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("INSERT INTO customer (id) VALUES (9)", "INSERT is refused"),
        ("update customer set name = 'x'", "update is refused"),
        ("DELETE FROM customer", "DELETE is refused"),
        ("REPLACE INTO customer (id) VALUES (1)", "REPLACE is refused"),
        ("DROP TABLE customer", "DROP is refused"),
        ("CREATE TABLE t (x)", "CREATE is refused"),
        ("ALTER TABLE customer ADD x", "ALTER is refused"),
        ("ATTACH DATABASE 'other.db' AS other", "ATTACH is refused"),
        ("DETACH DATABASE main", "DETACH is refused"),
        ("PRAGMA query_only = OFF", "PRAGMA is refused"),
        ("VACUUM INTO 'copy.db'", "VACUUM is refused"),
        ("BEGIN IMMEDIATE", "BEGIN is refused"),
        ("EXPLAIN SELECT 1", "EXPLAIN is refused"),
        ("/* x */ SELECT 1", r"/\* is refused"),
        ("WITH a AS (SELECT 1) DELETE FROM customer", "DELETE is refused"),
        ("WITH a AS (SELECT 1) INSERT INTO customer (id) SELECT 9", "INSERT is refused"),
        ("SELECT load_extension('x')", "load_extension is refused"),
        ("SELECT * FROM pragma_table_info('customer')", "is refused"),
        ("SELECT 1; DROP TABLE customer", "one statement"),
        ("SELECT 1; PRAGMA query_only = OFF", "one statement"),
        ("SELECT FROM", "syntax error"),
        ("SELECT * FROM absent", "no such table: absent"),
        ("SELECT absent FROM customer", "no such column: absent"),
        ("SELECT :city", r"is used, but not declared"),
        ("SELECT ?", "Binding"),
        ("SELECT 1\x00; DROP TABLE customer", "sql: "),
    ],
)
def test_what_does_more_than_read_is_refused_when_it_is_declared(sql, database, text, told):
    before = database.read_bytes()
    with pytest.raises(SetupError, match=rf"tool sql\.query: backend\.sql\.statements\.it: .*{told}") as caught:
        sql(text)
    assert "\n" not in caught.value.message
    assert database.read_bytes() == before


def test_a_declared_parameter_that_is_not_used_is_told(sql):
    with pytest.raises(SetupError, match=r"statements\.it: parameters\.city: is declared, but not used"):
        sql("SELECT 1", parameters=CITY)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"database": "nowhere.db"}, r"backend\.sql\.database: nowhere\.db is no file"),
        ({"effect": "idempotent"}, "effect: idempotent does not fit"),
        ({"input_schema": {"type": "object"}}, "input_schema: leave it out: it comes from the statements"),
        ({"max_rows": 0}, r"backend\.sql\.max_rows: "),
        ({"statements": {}}, r"backend\.sql\.statements: "),
        ({"statements": {"Bad Name": {"sql": "SELECT 1", "description": "x"}}}, r"backend\.sql\.statements\.Bad Name"),
        ({"statements": {"it": {"sql": "SELECT 1"}}}, r"backend\.sql\.statements\.it\.description: is required"),
    ],
)
def test_other_mistakes_are_told_with_their_field(sql, fields, told):
    with pytest.raises(SetupError, match=told):
        sql("SELECT 1", **fields)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS), max_size=10))
def test_no_statement_gets_a_write_through(database, words):
    before = database.read_bytes()
    connection = opened(database)
    try:
        connection.execute(" ".join(words)).fetchmany(5)
    except (sqlite3.Error, sqlite3.Warning):
        pass
    finally:
        connection.close()
    assert database.read_bytes() == before


async def test_more_rows_than_wanted_are_cut_and_marked(sql):
    answer = await it(sql(ENDLESS.format(what="x"), max_rows=5))
    assert answer == {"rows": [{"x": n} for n in range(1, 6)], "row_count": 5, "truncated": True}
    assert (await it(sql("SELECT id FROM customer", max_rows=3)))["truncated"] is False


async def test_more_bytes_than_wanted_are_cut_and_marked(sql):
    answer = await it(sql(ENDLESS.format(what="printf('%.*c', 500, 'x') AS text"), max_bytes=2_000, max_rows=100))
    assert answer["truncated"] is True
    assert 1 <= answer["row_count"] <= 4
    assert len(json.dumps(answer["rows"])) <= 2_100
    assert await it(sql("SELECT printf('%.*c', 5000, 'x') AS text", max_bytes=2_000)) == {
        "rows": [],
        "row_count": 0,
        "truncated": True,
    }


async def test_a_value_that_would_fill_the_memory_is_a_failure(sql):
    tool = sql("SELECT length(hex(zeroblob(:n))) AS n", parameters={"n": {"type": "integer"}})
    with pytest.raises(ToolFailedError, match="too big"):
        await it(tool, n=500_000_000)


async def test_a_statement_that_does_not_end_is_interrupted(sql):
    tool = sql(ENDLESS.format(what="sum(x)"), timeout_s=0.3)
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"took longer than 0\.3 s"):
        await it(tool)
    assert time.monotonic() - began < 20
    async with asyncio.timeout(5):
        while is_reading():
            await asyncio.sleep(0.01)


async def test_a_call_that_is_given_up_interrupts_its_statement(sql):
    tool = sql(ENDLESS.format(what="sum(x)"), timeout_s=60)
    call = asyncio.create_task(it(tool))
    async with asyncio.timeout(10):
        while not is_reading():
            await asyncio.sleep(0.01)
        call.cancel()
        while is_reading():
            await asyncio.sleep(0.01)
    assert call.cancelled()


async def test_a_database_that_is_gone_or_locked_may_be_tried_again(sql, database):
    tool = sql("SELECT id FROM customer", timeout_s=5)
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BackendUnavailableError, match="cannot be read at the moment"):
        await it(tool)
    writer.close()
    assert (await it(tool))["row_count"] == 3
    database.unlink()
    with pytest.raises(BackendUnavailableError):
        await it(tool)


async def test_a_call_through_a_host_is_checked_and_bounded(sql, hosting, registry):
    tool = sql("SELECT name FROM customer WHERE city = :city ORDER BY id", parameters=CITY)
    hosted = await hosting(tool)
    grant = Grant(tenant="acme", principal="alice", task_id="task-1", tools=["sql.query@1.0.0"])
    arguments = json.dumps({"statement": "it", "parameters": {"city": "Bonn"}})
    outcome = await hosted.host.invoke(grant, "sql.query@1.0.0", arguments, "")
    assert json.loads(outcome.result_json)["rows"] == [{"name": "Ada"}, {"name": "Bob"}]
    with pytest.raises(InvalidRequestError, match="statement"):
        await hosted.host.invoke(grant, "sql.query@1.0.0", '{"statement": "DROP TABLE customer"}', "")
    with pytest.raises(InvalidRequestError, match="city"):
        await hosted.host.invoke(grant, "sql.query@1.0.0", '{"statement": "it", "parameters": {}}', "")
