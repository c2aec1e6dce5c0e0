"""The wire: many callers on one connection, each with the reply to its own question, whatever happens to the others."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

from meshwright.core.errors import InternalError, StoreUnavailableError
from meshwright.core.store import Library, Store
from meshwright.core.wire import open_wire

ECHO = Library("echo", "redis.register_function('echo_VERSION', function(keys, args) return args[1] end)")


@pytest.fixture
async def wire(store):
    opened = await open_wire(store.url, 5.0)
    yield opened
    opened.close()


async def test_each_caller_gets_the_reply_to_its_own_question(wire):
    assert await asyncio.gather(*(wire.ask("ECHO", f"{number}") for number in range(1_000))) == [
        b"%d" % number for number in range(1_000)
    ]


async def test_a_caller_that_goes_away_takes_nobodys_reply_along(wire):
    asked = [wire.ask("ECHO", f"{number}") for number in range(100)]
    for future in asked[::2]:
        future.cancel()
    assert await asyncio.gather(*asked[1::2]) == [b"%d" % number for number in range(1, 100, 2)]
    assert await wire.ask("ECHO", "after") == b"after"


async def test_an_error_reaches_its_caller_alone(wire):
    good, bad, after = wire.ask("ECHO", "1"), wire.ask("NO-SUCH-COMMAND"), wire.ask("ECHO", "2")
    assert (await good, await after) == (b"1", b"2")
    with pytest.raises(ResponseError, match="unknown command"):
        await bad


async def test_large_and_binary_arguments_pass(wire, store):
    value = bytes(range(256)) * 40_000
    assert await wire.ask("SET", "k", value) == b"OK"
    assert await wire.ask("GET", "k") == value


async def test_a_connection_that_is_cut_fails_everybody_who_waits(wire, store):
    await store.client.execute_command("CLIENT", "PAUSE", 300, "WRITE")
    asked = [wire.ask("SET", f"k{number}", 1) for number in range(5)]
    await asyncio.sleep(0.05)
    await store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for failed in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(failed, StoreConnectionError)
    assert not wire.is_open
    with pytest.raises(StoreConnectionError):
        await wire.ask("PING")
    await store.client.execute_command("CLIENT", "UNPAUSE")


async def test_a_reply_that_is_late_ends_the_connection(store):
    wire = await open_wire(store.url, 0.2)
    await store.client.execute_command("CLIENT", "PAUSE", 1_000, "WRITE")
    with pytest.raises(StoreTimeoutError):
        await wire.ask("SET", "k", 1)
    assert not wire.is_open
    await store.client.execute_command("CLIENT", "UNPAUSE")


async def test_who_has_the_wrong_password_is_not_let_in(store):
    with pytest.raises(ResponseError):
        await open_wire(f"{store.url}?password=wrong", 2.0)


async def test_nobody_there_is_said_at_once(tmp_path):
    with pytest.raises(StoreConnectionError, match="cannot connect"):
        await open_wire(f"unix://{tmp_path}/none.sock", 2.0)


class TestStore:
    @pytest.fixture
    async def echoing(self, store):
        opened = Store(store.url, ECHO)
        await opened.open()
        yield opened
        await opened.close()

    async def test_functions_are_called_again_after_a_cut(self, echoing, store):
        for number in range(20):
            await store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            replies = await asyncio.gather(
                *(echoing.call(ECHO.function("echo"), "k", f"{number}.{part}") for part in range(10))
            )
            assert replies == [f"{number}.{part}".encode() for part in range(10)]

    async def test_two_hundred_readers_at_once_are_served(self, echoing):
        assert await asyncio.gather(*(echoing.run(("PING",)) for _ in range(200))) == [[True]] * 200

    async def test_a_closed_store_opens_no_connection_again(self, store):
        closed = Store(store.url, ECHO)
        await closed.open()
        waiting = [asyncio.create_task(closed.call(ECHO.function("echo"), "k", "1")) for _ in range(5)]
        await asyncio.sleep(0)
        await closed.close()
        assert await asyncio.gather(*waiting) == [b"1"] * 5
        with pytest.raises(InternalError):
            await closed.call(ECHO.function("echo"), "k", "1")

    async def test_a_store_that_is_gone_is_unavailable(self, own_valkey_store):
        own_valkey_store.kill()
        with pytest.raises(StoreUnavailableError):
            await own_valkey_store.store.call(ECHO.function("echo"), "k", "1")
        await own_valkey_store.start()
        assert await own_valkey_store.store.call(ECHO.function("echo"), "k", "1") == b"1"


@pytest.fixture
async def own_valkey_store(run_valkey, tmp_path):
    valkey = run_valkey(tmp_path)
    opened = Store(valkey.url, ECHO)
    await opened.open()

    class Own:
        store = opened

        def kill(self):
            valkey.kill()

        async def start(self):
            valkey.start()
            await opened.open()

    yield Own()
    await opened.close()
