"""The store: keys that cannot collide, functions that come back, and a start that refuses what would lose tasks."""

import asyncio
import re
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import TimeoutError as StoreTimeoutError

from meshwright.agents import journal
from meshwright.core import store as store_module
from meshwright.core.errors import InternalError, SetupError, StoreUnavailableError
from meshwright.core.public_url import public_url
from meshwright.core.store import (
    MESH,
    NOUNS,
    Library,
    Store,
    failure,
    partition_key,
    partition_of,
    reference,
    words_of,
)
from meshwright.registry import store as registry_store

ECHO = """
local function echo(keys, a) return {keys[1], a[1], now_ms()} end
local function fail(keys, a) return redis.call('NO_SUCH_COMMAND') end
local function count(keys, a) return redis.call('INCR', key('mesh', 'seen')) end
redis.register_function('echo_VERSION', echo)
redis.register_function('fail_VERSION', fail)
redis.register_function('count_VERSION', count)
"""
LIBRARY = Library("probe", ECHO)
NAMES = st.text(alphabet=st.one_of(st.sampled_from("/:{}%@.~ a"), st.characters(codec="utf-8")), max_size=8)


@pytest.fixture
async def probed(valkey):
    opened = Store(valkey.url, LIBRARY)
    await opened.open()
    yield opened
    await opened.close()


async def test_a_function_runs_under_its_versioned_name(probed):
    key = partition_key(MESH, "seen")
    reply = await probed.call(LIBRARY.function("echo"), key, b"\x00\xff")
    assert reply[:2] == [key.encode(), b"\x00\xff"]
    assert abs(reply[2] / 1000 - time.time()) < 60


async def test_functions_survive_an_emptied_store(probed):
    await probed.client.flushall()
    await probed.client.function_flush()
    assert await probed.call(LIBRARY.function("count"), partition_key(MESH, "seen")) == 1


async def test_many_callers_at_once_survive_an_emptied_store(probed):
    await probed.client.flushall()
    await probed.client.function_flush()
    counts = await asyncio.gather(
        *(probed.call(LIBRARY.function("count"), partition_key(MESH, "seen")) for _ in range(20))
    )
    assert sorted(counts) == list(range(1, 21))


async def test_two_versions_of_a_library_live_side_by_side(probed, valkey):
    newer = Library("probe", ECHO.replace("return {keys[1]", "return {'newer'"))
    second = Store(valkey.url, newer)
    await second.open()
    key = partition_key(MESH, "seen")
    assert (await probed.call(LIBRARY.function("echo"), key, "a"))[0] == key.encode()
    assert (await second.call(newer.function("echo"), key, "a"))[0] == b"newer"
    await second.close()


async def test_a_function_that_fails_is_an_error_of_ours(probed):
    with pytest.raises(InternalError):
        await probed.call(LIBRARY.function("fail"), partition_key(MESH, "seen"))


async def test_commands_are_run_in_one_round_trip_and_answered_in_order(probed):
    key = partition_key(MESH, "tools")
    await probed.client.delete(key)
    assert await probed.run(("SADD", key, "a"), ("SADD", key, b"b"), ("SCARD", key)) == [1, 1, 2]
    assert await probed.run() == []
    with pytest.raises(InternalError):
        await probed.run(("INCR", key))


async def test_a_closed_store_opens_no_connection_again(valkey):
    opened = Store(valkey.url, LIBRARY)
    await opened.open()
    await opened.close()
    with pytest.raises(InternalError, match="closed"):
        await opened.call(LIBRARY.function("count"), partition_key(MESH, "seen"))
    with pytest.raises(InternalError, match="closed"):
        await opened.run(("PING",))


async def test_a_store_that_is_not_there_is_told_soon_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(store_module, "PATIENCE_S", 0.1)
    for url in (f"unix://{tmp_path}/none.sock?password=hunter2", "redis://:hunter2@127.0.0.1:1/0"):
        absent = Store(url, LIBRARY)
        start = time.monotonic()
        with pytest.raises(SetupError) as caught:
            await absent.open()
        assert time.monotonic() - start < 20
        assert public_url(url) in caught.value.message
        assert "hunter2" not in caught.value.message
        assert "\n" not in caught.value.message
        await absent.close()


async def test_a_store_that_starts_as_well_is_waited_for(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    own.kill()
    late = Store(own.url, LIBRARY)
    opening = asyncio.create_task(late.open())
    await asyncio.sleep(0.2)
    own.start()
    await opening
    await late.close()


async def test_a_store_that_hangs_is_unavailable_in_time_and_closing_does_not_wait_for_it(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    opened = Store(own.url, LIBRARY, timeout_s=0.3)
    await opened.open()
    own.process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await opened.call(LIBRARY.function("count"), partition_key(MESH, "seen"))
    running = asyncio.create_task(opened.run(("PING",)))
    await asyncio.sleep(0)
    await opened.close()
    with pytest.raises(StoreUnavailableError):
        await running
    assert time.monotonic() - start < 20


async def test_a_store_that_went_away_is_unavailable_and_comes_back(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    opened = Store(own.url, LIBRARY)
    await opened.open()
    key = partition_key(MESH, "seen")
    assert await opened.call(LIBRARY.function("count"), key) == 1
    own.kill()
    with pytest.raises(StoreUnavailableError) as caught:
        await opened.call(LIBRARY.function("count"), key)
    assert caught.value.retry_after_s
    with pytest.raises(StoreUnavailableError):
        await opened.run(("PING",))
    own.start()
    async with asyncio.timeout(10):
        while True:
            try:
                count = await opened.call(LIBRARY.function("count"), key)
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
    assert count == 2
    await opened.close()


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy noeviction"),
        ("appendonly", "no", "appendonly yes"),
        ("appendfsync", "everysec", "appendfsync always"),
    ],
)
async def test_a_store_that_could_lose_tasks_is_refused_with_the_remedy(run_valkey, tmp_path, setting, value, remedy):
    own = run_valkey(tmp_path)
    opened = Store(own.url, LIBRARY)
    await opened.open()
    await opened.client.config_set(setting, value)
    with pytest.raises(SetupError, match=remedy):
        await opened.open()
    await opened.close()


@pytest.mark.parametrize(
    "url", ["http://:hunter2@host/", "store:6379", "redis://:hunter2/x@host:y/0", "redis://host:hunter2"]
)
def test_an_address_that_is_none_is_refused_without_showing_a_password(url):
    with pytest.raises(SetupError) as caught:
        Store(url)
    assert "MESHWRIGHT_STORE_URL" in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:hunter2@store.example:6380/2", "rediss://store.example:6380/2"),
        ("redis://:hunter2@store", "redis://store"),
        ("redis://:h@nter2:hunter2@store:1/0", "redis://store:1/0"),
        ("redis://store/0?password=hunter2", "redis://store/0"),
        ("unix:///run/store.sock?password=hunter2", "unix:///run/store.sock"),
        ("unix:///run/store.sock?password=hunter2@hunter2", "unix:///run/store.sock"),
        ("unix://user:hunter2@/run/store.sock", "unix:///run/store.sock"),
        ("redis://:hunter2?hunter2@store", "an address that cannot be read"),
        ("redis://:hunter2/hunter2@store", "an address that cannot be read"),
        ("redis://user:1/hunter2@store", "an address that cannot be read"),
        ("redis://[::1", "an address that cannot be read"),
    ],
)
def test_a_password_is_never_in_what_may_be_shown(url, shown):
    assert public_url(url) == shown


async def test_the_number_of_partitions_is_settled_by_the_first_who_names_one(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    opened = Store(own.url)
    await opened.open()
    assert opened.partitions == 1
    await opened.open(8)
    assert opened.partitions == 8
    other = Store(own.url)
    await other.open()
    assert other.partitions == 8
    with pytest.raises(SetupError, match="MESHWRIGHT_PARTITIONS=8, not 4"):
        await other.open(4)
    await opened.close()
    await other.close()


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_two_owners_never_share_a_reference(left, right):
    assert (reference(*left) == reference(*right)) == (left == right)


@hypothesis_settings(max_examples=100, deadline=None)
@given(NAMES, NAMES, NAMES)
def test_a_reference_cannot_leave_its_place_in_a_key(tenant, principal, task_id):
    name = reference(tenant, principal, task_id)
    assert re.fullmatch(r"[^:{}]*/[^:{}]*/[^:{}]*", name)
    assert name.count("/") == 2
    assert partition_key(3, "task", name) == f"mw:{{3}}:task:{name}"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a/b", "c", "d"), ("a", "b/c", "d")),
        (("a", "b", "c:d"), ("a", "b:c", "d")),
        (("a%2Fb", "c", "d"), ("a/b", "c", "d")),
        (("{1}", "c", "d"), ("%7B1%7D", "c", "d")),
        (("", "a", "b"), ("a", "", "b")),
        (("ü", "a", "b"), ("u\u0308", "a", "b")),
    ],
)
def test_names_with_signs_of_keys_stay_apart(left, right):
    assert reference(*left) != reference(*right)


def test_a_key_holds_only_known_nouns():
    with pytest.raises(AssertionError):
        partition_key(0, "something")


@pytest.mark.parametrize("module", [journal, registry_store], ids=["journal", "registry"])
def test_functions_spell_only_known_nouns(module):
    source = "".join(path.read_text() for path in Path(module.__file__).parent.rglob("*.lua"))
    spelled = set(re.findall(r"\bkey\([^,()]+(?:\[\d\])?, '(\w+)'", source))
    assert spelled
    assert spelled <= NOUNS


@pytest.mark.parametrize("partitions", [1, 2, 16, 1024])
def test_a_tree_shares_a_partition_and_trees_are_spread(partitions):
    places = [partition_of("tenant", f"root-{number}", partitions) for number in range(4 * partitions)]
    assert all(0 <= place < partitions for place in places)
    assert len(set(places)) > partitions / 2
    assert partition_of("tenant", "root", partitions) == partition_of("tenant", "root", partitions)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreConnectionError("Error 111 connecting to 10.1.2.3:6379. Connection refused."), "Connection refused"),
        (
            StoreConnectionError("Error -2 connecting to inside:6379. Name or service not known."),
            "its name is not known",
        ),
        (StoreConnectionError("Error while reading from 10.1.2.3:6379 : (104, 'reset')"), "Connection reset by peer"),
        (StoreConnectionError("Connection closed by server."), "the connection was lost"),
        (StoreTimeoutError("Timeout reading from 10.1.2.3:6379"), "no reply in time"),
        (ConnectionRefusedError(111, "refused", "/inside.sock"), "Connection refused"),
        (TimeoutError(), "no reply in time"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0)"), "Connection refused"),
    ],
)
def test_an_outage_is_told_without_an_address(error, told):
    assert failure(error).message == f"the store does not answer: {told}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreConnectionError("Error 111 connecting to a:1. (1)."), "Connection refused"),
        (StoreConnectionError("Error -2 connecting to a:1. y."), "its name is not known"),
        (TimeoutError(), "no reply in time"),
        (StoreTimeoutError("Timeout connecting to server"), "no reply in time"),
        (AuthenticationError("invalid username-password pair."), "invalid username-password pair"),
        (StoreConnectionError("Error 1 connecting to a:1. [SSL: X] y."), "Error 1 connecting to a:1. [SSL: X] y"),
        (StoreConnectionError("Connection closed by server."), "Connection closed by server"),
    ],
)
def test_why_a_store_cannot_be_used_is_said_in_the_systems_words_or_its_own(error, told):
    assert words_of(error) == told
