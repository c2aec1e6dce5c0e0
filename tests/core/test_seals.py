"""Seals on a real store: who may open it, who writes first, what a key's end means."""

import asyncio
import contextlib
import os

import pytest

from meshwright.core.codec import Codec, ContentKeys, SealPlace
from meshwright.core.errors import ContentKeyMissingError, DataLossError, SealedOtherwiseError, SetupError
from meshwright.core.seals import ATTEMPTS, Seals
from meshwright.core.store import Store, partition_key

ONE, TWO = os.urandom(32), os.urandom(32)
PLACE = SealPlace("acme", partition_key("slot", "seal", "s1"))


@pytest.fixture
async def opened(store):
    """Opens the store as a process that has some keys, given as pairs of id and key; none: without any."""
    async with contextlib.AsyncExitStack() as stack:

        async def with_keys(*keys):
            other = Store(store.url, codec=Codec(ContentKeys(dict(keys)) if keys else None))
            stack.push_async_callback(other.close)
            await other.open()
            return other

        yield with_keys


class TestOpening:
    async def test_a_process_without_keys_does_not_start_on_a_store_with_encrypted_content(self, opened):
        await opened()
        await opened(("one", ONE))
        with pytest.raises(SetupError, match=r"encrypted with one.*MESHWRIGHT_CONTENT_KEYS_FILE"):
            await opened()

    async def test_another_key_of_the_same_id_does_not_start(self, opened):
        await opened(("one", ONE))
        with pytest.raises(SetupError, match="key one is not the one"):
            await opened(("one", TWO))
        with pytest.raises(SetupError, match="key one is not the one"):
            await opened(("two", TWO), ("one", TWO))
        with pytest.raises(SetupError, match="encrypted with one:"):
            await opened(("two", TWO))  # who is refused leaves no trace

    async def test_keys_that_the_store_has_never_seen_do_not_start(self, opened):
        await opened(("one", ONE))
        with pytest.raises(SetupError, match="encrypted with one"):
            await opened(("two", TWO))

    async def test_a_new_key_joins_those_that_are_known(self, opened):
        await opened(("one", ONE))
        await opened(("two", TWO), ("one", ONE))
        await opened(("one", ONE), ("two", TWO))

    async def test_who_handles_no_content_needs_no_keys(self, opened, store):
        await opened(("one", ONE))
        other = Store(store.url)
        await other.open()
        await other.close()


class TestWriting:
    async def put(self, store, seal):
        """Writes as the store's functions do: refused where another data key stands."""
        kept = (await store.run(("GET", seal.place.key)))[0]
        if kept not in (None, seal.wrapped):
            raise SealedOtherwiseError("another process wrote here first")
        await store.run(("SET", seal.place.key, seal.wrapped))
        return seal

    async def test_who_is_slower_writes_with_the_key_of_who_was_faster(self, opened):
        store = await opened(("one", ONE))
        seals, first = Seals(store), Codec(ContentKeys({"one": ONE})).fresh(PLACE)
        tried = []

        async def put(seal):
            tried.append(seal)
            if len(tried) == 1:
                await store.run(("SET", PLACE.key, first.wrapped))
            return await self.put(store, seal)

        written = await seals.write(PLACE, ["none"], put)
        assert written.decrypt("kind", first.encrypt("kind", b"content")) == b"content"
        assert [seal.is_mixed for seal in tried] == [False, False]

    async def test_who_is_never_fast_enough_is_told(self, opened):
        tried = []

        async def put(seal):
            tried.append(seal)
            raise SealedOtherwiseError("another process wrote here first")

        with pytest.raises(SealedOtherwiseError):
            await Seals(await opened(("one", ONE))).write(PLACE, ["none"], put)
        assert len(tried) == ATTEMPTS

    async def test_older_content_is_known_of(self, opened):
        store = await opened(("one", ONE))
        await store.run(("SET", "older", "content"))
        seal = await Seals(store).write(PLACE, ["older"], lambda seal: self.put(store, seal))
        assert seal.is_mixed
        assert await Seals(store).decrypt(PLACE, "kind", b"plain") == b"plain"

    async def test_all_who_adopt_a_place_at_once_get_one_key(self, opened):
        store = await opened(("one", ONE))
        await store.run(("SET", "owner", "1"))
        found = await asyncio.gather(*(Seals(store).adopt(PLACE, "owner") for _ in range(8)))
        assert len({seal.wrapped for seal in found}) == 1
        assert (await Seals(store).adopt(SealPlace("acme", partition_key("slot", "seal", "s2")), "gone")).is_missing


class TestEnd:
    async def test_a_key_that_is_gone_is_told(self, opened):
        store = await opened(("one", ONE))
        seal = await Seals(store).write(PLACE, ["none"], lambda seal: TestWriting().put(store, seal))
        content = seal.encrypt("kind", b"content")
        await store.run(("DEL", PLACE.key))
        with pytest.raises(DataLossError, match="gone"):
            await Seals(store).decrypt(PLACE, "kind", content)

    async def test_a_key_that_was_replaced_is_read_again(self, opened):
        store = await opened(("one", ONE))
        reader, first = Seals(store), Codec(ContentKeys({"one": ONE})).fresh(PLACE)
        await store.run(("SET", PLACE.key, first.wrapped))
        assert await reader.decrypt(PLACE, "kind", first.encrypt("kind", b"a")) == b"a"
        second = Codec(ContentKeys({"one": ONE})).fresh(PLACE)
        await store.run(("SET", PLACE.key, second.wrapped))
        assert await reader.decrypt(PLACE, "kind", second.encrypt("kind", b"b")) == b"b"

    async def test_a_process_that_lacks_an_older_key_names_it(self, opened):
        store = await opened(("one", ONE))
        first = Codec(ContentKeys({"one": ONE})).fresh(PLACE)
        await store.run(("SET", PLACE.key, first.wrapped))
        await opened(("two", TWO), ("one", ONE))
        younger = await opened(("two", TWO))
        with pytest.raises(ContentKeyMissingError, match="one"):
            await Seals(younger).decrypt(PLACE, "kind", first.encrypt("kind", b"a"))
