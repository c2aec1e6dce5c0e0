"""What every declared tool may say, whatever is behind it."""

import json

import pytest

from meshwright.core.errors import MeshError, SetupError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger


@pytest.fixture
def sums(declared, tmp_path):
    """Makes a tool that asks a small database: `sums(required_scopes=[...])`."""
    import sqlite3

    with sqlite3.connect(tmp_path / "sums.db") as database:
        database.execute("create table sum (name text, secret text)")
        database.execute("insert into sum values ('one', 's3cret')")
    database.close()

    def made(**fields):
        statement = {"description": "All sums.", "sql": "SELECT name, secret FROM sum", "parameters": {}}
        backend = {"sql": {"database": "sums.db", "statements": {"every": statement}}}
        (tool,) = declared(backend, **fields)
        return tool

    return made


async def asked(store, tool, *scopes):
    grant = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["its.tool@1.0.0"], scopes=scopes)
    host = ToolHost([tool], Ledger(store))
    return await host.invoke(grant, "its.tool@1.0.0", '{"statement": "every"}', "k")


async def test_it_names_scopes_that_its_callers_need(store, sums):
    tool = sums(required_scopes=["sums:read"])
    assert list(tool.contract().required_scopes) == ["sums:read"]
    with pytest.raises(MeshError) as caught:
        await asked(store, tool, "sums:write")
    assert (caught.value.reason, caught.value.metadata["scopes"]) == ("SCOPE_MISSING", "sums:read")
    assert not (await asked(store, tool, "sums")).HasField("error")


async def test_it_names_what_is_taken_out_of_its_results(store, sums):
    outcome = await asked(store, sums(redact=["/rows/-/secret"]))
    assert json.loads(outcome.result_json)["rows"] == [{"name": "one", "secret": "[redacted]"}]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"required_scopes": "sums:read"}, "required_scopes: "),
        ({"required_scopes": ["sums read"]}, "required_scopes: must be 1 to 200"),
        ({"redact": ["secret"]}, "redact: at most 64 JSON Pointers"),
        ({"rate": 10}, "rate: "),
    ],
)
def test_mistakes_are_told_with_their_field(sums, fields, told):
    with pytest.raises(SetupError, match=told):
        sums(**fields)
