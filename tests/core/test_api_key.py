"""API keys in a real store: shown once, told apart, dead when they are revoked."""

import time

import pytest

from meshwright.core import api_key
from meshwright.core.api_key import LIBRARY, ApiKeys, place_of
from meshwright.core.errors import (
    ApiKeyNotFoundError,
    InvalidRequestError,
    KeyExpiredError,
    KeyRevokedError,
    KeyUnknownError,
    StoreUnavailableError,
)
from meshwright.core.store import Store


@pytest.fixture
def keys(store):
    return ApiKeys(store)


async def made(keys, **chosen):
    return await keys.create("ci", ["tasks:read", "tasks:write"], **({"tenant": "acme"} | chosen))


async def test_a_key_says_who_its_holder_is(keys):
    text, known = await made(keys, principal="bot", life_s=60)
    seen = await keys.verify(text)
    assert (seen.key_id, seen.tenant, seen.principal) == (known.key_id, "acme", "bot")
    assert seen.scopes == {"tasks:read", "tasks:write"}
    assert seen.expires - seen.created == 60_000
    assert (await made(keys))[1].principal == "ci"


async def test_the_store_holds_no_key(keys, store):
    text, known = await made(keys)
    secret = text.rpartition("_")[2]
    everything = [await store.client.dump(key) for key in await store.client.keys("*")]
    assert everything
    assert not any(secret.encode() in content for content in everything)
    assert secret not in repr(known)


async def test_keys_differ(keys):
    texts = {(await made(keys))[0] for _ in range(20)}
    assert len(texts) == 20


@pytest.mark.parametrize("change", ["secret", "id", "empty", "prefix", "longer", "upper", "text", "huge"])
async def test_what_is_no_key_is_unknown_whether_its_id_exists_or_not(keys, change):
    text, known = await made(keys)
    _, other = await made(keys)
    wrong = {
        "secret": text[:-1] + ("0" if text[-1] != "0" else "1"),
        "id": text.replace(known.key_id, other.key_id),
        "empty": "",
        "prefix": text.removeprefix("mwk_"),
        "longer": text + "0",
        "upper": text.upper(),
        "text": "mwk_nothing",
        "huge": "mwk_" + "a" * 100_000,
    }[change]
    with pytest.raises(KeyUnknownError) as unknown:
        await keys.verify(wrong)
    with pytest.raises(KeyUnknownError) as nobody:
        await keys.verify(f"mwk_{'f' * 12}_{'0' * 64}")
    assert unknown.value.message == nobody.value.message


async def test_a_revoked_key_is_dead_at_once_and_says_so_to_its_holder_alone(keys):
    text, known = await made(keys)
    await keys.verify(text)
    gone = await keys.revoke(known.key_id)
    assert gone.revoked
    with pytest.raises(KeyRevokedError):
        await keys.verify(text)
    with pytest.raises(KeyUnknownError):
        await keys.verify(text[:-4] + "0000" if not text.endswith("0000") else text[:-4] + "1111")
    assert (await keys.revoke(known.key_id)).revoked == gone.revoked
    with pytest.raises(ApiKeyNotFoundError):
        await keys.revoke("0" * 12)
    with pytest.raises(InvalidRequestError):
        await keys.revoke("*")


async def test_an_expired_key_is_refused(keys, store):
    text, known = await made(keys, life_s=60)
    await keys.verify(text)
    await store.client.hset(place_of(known.key_id), "expires", int(time.time() * 1000) - 1)
    with pytest.raises(KeyExpiredError):
        await keys.verify(text)


async def test_the_last_use_is_noted_once_a_minute(keys, store):
    text, known = await made(keys)
    assert (await keys.all())[0].used == 0
    await keys.verify(text)
    first = (await keys.all())[0].used
    assert abs(first - time.time() * 1000) < 60_000
    await keys.verify(text)
    assert (await keys.all())[0].used == first
    await store.client.hset(place_of(known.key_id), "used", first - 61_000)
    await keys.verify(text)
    assert (await keys.all())[0].used >= first


async def test_keys_are_listed_until_they_are_long_past(keys, store):
    _, first = await made(keys, life_s=60)
    _, second = await made(keys)
    assert {one.key_id for one in await keys.all()} == {first.key_id, second.key_id}
    assert 0 < await store.client.ttl(place_of(first.key_id)) <= 60 + 30 * 86_400
    assert await store.client.ttl(place_of(second.key_id)) == -1
    await keys.revoke(second.key_id)
    assert 0 < await store.client.ttl(place_of(second.key_id)) <= 30 * 86_400
    await store.client.delete(place_of(first.key_id))
    assert [one.key_id for one in await keys.all()] == [second.key_id]
    assert await store.client.scard(api_key.INDEX) == 1


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"tenant": " acme"}, "tenant"),
        ({"principal": "\x1b[31m"}, "principal"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["two words"]}, "scopes"),
        ({"scopes": [f"s{number}" for number in range(65)]}, "scopes"),
        ({"scopes": ["x" * 200] * 30}, "scopes"),
    ],
)
async def test_what_a_key_may_not_be_is_refused_by_field(keys, chosen, field):
    asked = {"name": "ci", "scopes": ["tasks:read"], "tenant": "acme"} | chosen
    with pytest.raises(InvalidRequestError) as refused:
        await keys.create(asked.pop("name"), asked.pop("scopes"), **asked)
    assert list(refused.value.fields) == [field]
    assert await keys.all() == []


async def test_there_is_a_bound_of_keys(keys, monkeypatch):
    monkeypatch.setattr(api_key, "MOST_KEYS", 2)
    await made(keys)
    await made(keys)
    with pytest.raises(InvalidRequestError, match="revoke some"):
        await made(keys)


async def test_without_the_store_nobody_is_known(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    store = Store(own.url, LIBRARY, timeout_s=1)
    await store.open()
    keys = ApiKeys(store)
    text, _ = await made(keys)
    own.kill()
    with pytest.raises(StoreUnavailableError):
        await keys.verify(text)
    await store.close()
