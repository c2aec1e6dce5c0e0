"""A key of a command's own: it opens what it is for, and is dead afterwards, whatever happened."""

import asyncio

import pytest

from meshwright.cli.own_key import own_key
from meshwright.core.api_key import ApiKeys
from meshwright.core.errors import KeyRevokedError, SetupError

SCOPES = ("tasks:read", "tasks:write")


@pytest.fixture
def auth(monkeypatch):
    """Sets how callers say who they are."""

    def choose(ways, api_key=""):
        monkeypatch.setenv("MESHWRIGHT_AUTH", ways)
        monkeypatch.setenv("MESHWRIGHT_JWT_ISSUER", "https://issuer.example")
        monkeypatch.setenv("MESHWRIGHT_API_KEY", api_key)

    return choose


@pytest.mark.parametrize("ways", ["keys", "keys,jwt"])
async def test_a_key_has_the_least_scopes_and_an_end_and_is_revoked(store, valkey, auth, ways):
    auth(ways, api_key="of another mesh")
    keys = ApiKeys(store)
    async with own_key(valkey.url, "demo", SCOPES) as key:
        known = await keys.verify(key)
        assert (known.name, known.tenant, known.scopes) == ("demo", "default", frozenset(SCOPES))
        assert known.expires > known.created
    with pytest.raises(KeyRevokedError):
        await keys.verify(key)


async def test_a_key_is_revoked_where_its_command_fails(store, valkey, auth):
    auth("keys")
    with pytest.raises(ValueError, match="broken"):
        async with own_key(valkey.url, "demo", SCOPES) as key:
            raise ValueError("broken")
    with pytest.raises(KeyRevokedError):
        await ApiKeys(store).verify(key)


async def test_a_key_is_revoked_where_its_command_is_ended(store, valkey, auth):
    auth("keys")
    made = asyncio.get_running_loop().create_future()

    async def work():
        async with own_key(valkey.url, "demo", SCOPES) as key:
            made.set_result(key)
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    key = await made
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(KeyRevokedError):
        await ApiKeys(store).verify(key)


async def test_a_store_that_is_gone_takes_the_key_along(run_valkey, tmp_path, auth):
    auth("keys")
    own = run_valkey(tmp_path / "own")
    async with asyncio.timeout(20), own_key(own.url, "demo", SCOPES) as key:
        assert key
        own.kill()


async def test_a_mesh_that_asks_nobody_is_shown_nothing(auth):
    auth("none", api_key="mwk_of_another_mesh")
    async with own_key("unix:///nowhere", "demo", SCOPES) as key:
        assert key == ""


async def test_a_mesh_that_takes_tokens_alone_is_shown_the_callers_own(auth):
    auth("jwt", api_key="a.b.c")
    async with own_key("unix:///nowhere", "demo", SCOPES) as key:
        assert key == "a.b.c"
    auth("jwt")
    with pytest.raises(SetupError, match=r"MESHWRIGHT_API_KEY .*tasks:read tasks:write"):
        async with own_key("unix:///nowhere", "demo", SCOPES):
            pass
