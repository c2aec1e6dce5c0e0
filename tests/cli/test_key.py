"""`meshwright key`: what an operator sees of API keys."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from meshwright.cli.main import app
from meshwright.core.api_key import ApiKeys
from meshwright.core.errors import (
    ApiKeyNotFoundError,
    InvalidRequestError,
    KeyRevokedError,
    SetupError,
    StoreDeniedError,
)
from meshwright.core.role import Role
from meshwright.core.store_user import rules


@pytest.fixture
def invoke(store):
    """Runs the command at the store of the test, in a thread of its own."""

    async def run(*arguments):
        line = ["key", *arguments, "--store", store.url]
        return await asyncio.to_thread(CliRunner().invoke, app, line)

    return run


async def test_a_key_is_shown_once_opens_what_it_says_and_is_revoked(invoke, store):
    done = await invoke(
        *("create", "--name", "ci", "--scopes", "tasks:read, tasks:write", "--tenant", "acme", "--expires", "30d")
    )
    assert done.exit_code == 0, done.output
    key = done.stdout.strip()
    known = await ApiKeys(store).verify(key)
    assert (known.tenant, known.principal, known.scopes) == ("acme", "ci", {"tasks:read", "tasks:write"})
    assert known.expires - known.created == 30 * 86_400_000
    listed = await invoke("list", "-o", "json")
    assert key.rpartition("_")[2] not in listed.output
    (shown,) = json.loads(listed.stdout)
    assert (shown["key_id"], shown["revoked"], shown["scopes"]) == (known.key_id, None, ["tasks:read", "tasks:write"])
    table = await invoke("list")
    assert known.key_id in table.stdout
    revoked = await invoke("revoke", known.key_id)
    assert revoked.stdout.startswith(f"{known.key_id}  revoked: ci of acme")
    with pytest.raises(KeyRevokedError):
        await ApiKeys(store).verify(key)
    assert "revoked 20" in (await invoke("list")).stdout


async def test_a_program_reads_the_key_as_json(invoke, store):
    done = await invoke("create", "--name", "ci", "--scopes", "*", "--principal", "bot", "-o", "jsonl")
    told = json.loads(done.stdout)
    assert (await ApiKeys(store).verify(told["key"])).principal == told["principal"] == "bot"
    assert (told["tenant"], told["expires"]) == ("default", None)


@pytest.mark.parametrize("span", ["30", "0d", "d", "-1d", "1w", "3651d", "9999999d", "99999999d"])
async def test_what_is_no_span_of_time_is_refused(invoke, span):
    done = await invoke("create", "--name", "ci", "--scopes", "*", f"--expires={span}")
    assert isinstance(done.exception, InvalidRequestError)


async def test_a_key_that_is_not_there_cannot_be_revoked(invoke):
    assert isinstance((await invoke("revoke", "0" * 12)).exception, ApiKeyNotFoundError)


async def test_a_folder_without_a_mesh_is_said_so(tmp_path):
    line = ["key", "list", "--data", str(tmp_path)]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    assert isinstance(done.exception, SetupError)
    assert str(tmp_path) in done.exception.message


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("key list --store redis://127.0.0.1:1", "with --data, or a store with --store"),
        ("audit list --store redis://127.0.0.1:1", "with --data, or a store with --store"),
        ("audit verify --store redis://127.0.0.1:1", "with --data, or a store with --store"),
        ("store prune", "with MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL"),
        ("store install", "with MESHWRIGHT_STORE_ADMIN_URL, else MESHWRIGHT_STORE_URL"),
    ],
)
async def test_where_there_is_no_store_the_error_says_how_another_one_is_named(monkeypatch, line, advice):
    monkeypatch.setenv("MESHWRIGHT_STORE_ADMIN_URL", "redis://127.0.0.1:1")
    done = await asyncio.to_thread(CliRunner().invoke, app, line.split())
    assert isinstance(done.exception, SetupError)
    assert done.exception.message.startswith("the store at redis://127.0.0.1:1 cannot be used: ")
    assert done.exception.message.endswith(advice)


async def test_the_store_of_a_mesh_on_this_machine_is_found_by_its_folder(tmp_path, store):
    (tmp_path / "mesh.json").write_text(json.dumps({"registry": "127.0.0.1:1", "store": store.url}))
    line = ["key", "create", "--name", "ci", "--scopes", "*", "--data", str(tmp_path)]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    assert (await ApiKeys(store).verify(done.stdout.strip())).name == "ci"


@pytest.mark.parametrize(
    ("scope", "meant"),
    [
        ("tasks:red", "tasks:read"),
        ("task:read", "tasks:read"),
        ("tasks:everything", "tasks:admin or tasks:approve"),
        ("tasks:read:mine", "tasks:read"),
        ("webhoks", "webhooks"),
    ],
)
async def test_a_scope_that_is_spelled_wrongly_is_refused_with_the_one_that_is_meant(invoke, store, scope, meant):
    done = await invoke("create", "--name", "ci", "--scopes", f"tasks:read,{scope}")
    assert isinstance(done.exception, InvalidRequestError)
    assert meant in done.exception.message
    assert await ApiKeys(store).all() == []


async def test_a_scope_of_tools_is_taken_and_told(invoke):
    done = await invoke("create", "--name", "ci", "--scopes", "tasks,tools:write:docs.,mail:send")
    assert done.exit_code == 0
    assert "mail:send: no scope of the mesh, good for tools that require it" in done.stderr


async def test_an_empty_principal_is_none(invoke):
    done = await invoke("create", "--name", "ci", "--scopes", "*", "--principal", "")
    assert isinstance(done.exception, InvalidRequestError)
    assert done.exception.fields.keys() == {"principal"}


async def test_a_key_revokes_itself_and_is_not_printed(invoke, store):
    key = (await invoke("create", "--name", "ci", "--scopes", "*")).stdout.strip()
    done = await invoke("revoke", key)
    assert done.exit_code == 0
    assert key.rpartition("_")[2] not in done.output
    with pytest.raises(KeyRevokedError):
        await ApiKeys(store).verify(key)


async def test_a_store_that_does_not_answer_is_said_with_how_another_one_is_named(tmp_path):
    line = ["key", "list", "--store", f"unix://{tmp_path}/nobody.sock"]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    assert isinstance(done.exception, SetupError)
    assert "--data" in done.exception.message
    assert "--store" in done.exception.message


async def test_a_user_of_the_store_without_rights_is_told_whose_address_is_needed(store):
    await store.client.execute_command("ACL", "SETUSER", "mw-agent", "on", ">secret", *rules(Role.AGENT))
    line = ["key", "list", "--store", store.url.replace("unix://", "unix://mw-agent:secret@")]
    done = await asyncio.to_thread(CliRunner().invoke, app, line)
    await store.client.execute_command("ACL", "DELUSER", "mw-agent")
    assert isinstance(done.exception, StoreDeniedError)
    assert "mw-gateway" in done.exception.message
