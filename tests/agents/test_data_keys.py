"""Data keys that leave an old master key: under load, cut off in the middle, run twice, and all is read without it."""

import asyncio
import base64
import contextlib
import dataclasses
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from meshwright.agents.answers import Answers, Kept
from meshwright.agents.answers import place_of as answers_place
from meshwright.agents.data_keys import BATCH, DataKeys, tenants_of
from meshwright.agents.embedders.hashing import HashingEmbedder
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.memory import Memory
from meshwright.agents.models.prices import Prices
from meshwright.agents.question import Question
from meshwright.agents.recall import LongTermMemory, Origin, Place
from meshwright.agents.recall import place_of as memories_place
from meshwright.agents.sealing import place_of as tree_place
from meshwright.agents.session import place_of as session_place
from meshwright.agents.task import TaskName
from meshwright.cli.main import app
from meshwright.core.codec import MARK, Codec, ContentKeys, SealPlace, wrapping_id
from meshwright.core.errors import SetupError
from meshwright.core.store import MESH, Store, partition_key
from meshwright.gen.agents.v1.task_pb2 import EmbeddingUsage
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY
from meshwright.registry.store import Ledger

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET, INTENT = "The code is 7319.", "i" * 64
LARGE = SECRET + "." * 100_000
NAMES = st.one_of(st.sampled_from(["answers", "a b", "a/b", "%2F", "0", "-"]), st.text(min_size=1, max_size=9))


def keys(*ids):
    return ContentKeys({key_id: {"old": OLD, "new": NEW}[key_id] for key_id in ids})


@pytest.fixture
async def store(valkey):
    """An open and empty store; who opens it thus has no keys."""
    opened = Store(valkey.url, LIBRARY, REGISTRY_LIBRARY)
    await opened.client.flushall()
    await opened.open()
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def process_with(url, *ids):
    """Opens the store as a process with these master keys does."""
    opened = Store(url, LIBRARY, REGISTRY_LIBRARY, codec=Codec(keys(*ids)))
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()


async def last(walk):
    """Walks to the end; returns the last census."""
    censuses = [census async for census in walk]
    return censuses[-1]


async def sealed_by(store):
    """Maps all keys in the store that hold data keys to the ids of their master keys."""
    found = {}
    async for key in store.client.scan_iter(match="mw:*:seal*", _type="string"):
        found[key.decode()] = wrapping_id(SealPlace("", key.decode()), await store.client.get(key))
    return found


class Content:
    """Content in all places that have a data key, written by one process and read by any."""

    def __init__(self, tenant):
        self.name = TaskName(tenant, "ann", "t1")
        self.holder = (tenant, "ann", "call-1")
        self.facts = {"intent": INTENT, "timeout_s": 60, "may_rerun": False, "fence": 1, "token": "t"}

    async def write(self, store, made):
        journal, question = Journal(store, "one"), self.question
        task = dataclasses.replace(made.task(), name=self.name)
        claim = (await journal.accept(task, claim=True, events=[made.notice(SECRET)])).claim
        await journal.append(claim, "large", [made.notice(LARGE)])
        await Memory(store).pin(self.name, "s1", SECRET)
        memories = self.memories(store)
        for session_id in ("s1", ""):
            origin = Origin("t1", session_id, is_tainted=False)
            await memories.remember(Place(self.name, "worker"), f"k{session_id}", SECRET, origin, EmbeddingUsage())
            answer = Kept(SECRET, SECRET, "p", "m", 3, 4)
            await Answers(store).keep(question(session_id), answer, session_id, 60_000)
        await Ledger(store).forgo(self.holder, "k", INTENT, SECRET.encode())
        return claim

    def question(self, session_id):
        return Question(self.name, "scope", f"id{session_id}", SECRET, bytes([127, 1]))

    def memories(self, store):
        return LongTermMemory(store, MeteredEmbedder(HashingEmbedder(), Prices()))

    async def check(self, store):
        journal = Journal(store, "reader")
        first, large = [entry.event("t1").notice.detail for entry in await journal.read(self.name, 0)]
        assert (first, large) == (SECRET, LARGE)
        assert (await journal.record(self.name)).request.prompt == "Do it."
        assert (await Memory(store).load(self.name, "s1")).facts == (SECRET,)
        hits = await self.memories(store).recall(Place(self.name, "worker"), SECRET, 5, EmbeddingUsage())
        assert [hit.memory.text for hit in hits] == [SECRET, SECRET]
        for session_id in ("s1", ""):
            assert (await Answers(store).find(self.question(session_id))).text == SECRET
        assert await Ledger(store).look(self.holder, "k") == ("done", SECRET.encode())


class TestRewrap:
    @pytest.mark.parametrize("tenant", ["acme", "answers", "a b/c"])
    async def test_everything_is_read_once_the_old_key_is_gone(self, store, made, tenant):
        content = Content(tenant)
        async with process_with(store.url, "old") as before:
            await content.write(before, made)
        places = await sealed_by(store)
        assert set(places.values()) == {"old"}
        assert len(places) == 7
        lives = {key: await store.client.pttl(key) for key in places}
        async with process_with(store.url, "new", "old") as rotated:
            census = await last(DataKeys(rotated, keys("new", "old")).rewrap())
        assert census.is_of("new")
        assert census.held == {"new": 7}
        assert set((await sealed_by(store)).values()) == {"new"}
        for key, life in lives.items():
            assert (life > 0) == (await store.client.pttl(key) > 0), key
        async with process_with(store.url, "new") as after:
            await content.check(after)

    async def test_a_process_that_has_data_keys_open_goes_on(self, store, made):
        content = Content("acme")
        async with process_with(store.url, "old") as before, process_with(store.url, "new", "old") as running:
            claim = await content.write(before, made)
            journal = Journal(running, "one")
            await journal.read(content.name, 0)
            await last(DataKeys(running, keys("new", "old")).rewrap())
            await journal.append(claim, "later", [made.notice(SECRET)])
            await Memory(running).pin(content.name, "s1", "Later.")
        async with process_with(store.url, "new") as after:
            assert len(await Journal(after, "two").read(content.name, 0)) == 3
            assert (await Memory(after).load(content.name, "s1")).facts == (SECRET, "Later.")

    async def test_what_was_deleted_or_replaced_meanwhile_stays_so(self, store):
        place = SealPlace("acme", partition_key("slot", "seal", "s1"))
        wrapped = Codec(keys("old")).fresh(place).wrapped
        fresh = Codec(keys("new", "old")).rewrapped(place, wrapped)
        assert await store.call(LIBRARY.function("rewrap"), place.key, wrapped, fresh) == 0
        assert await store.client.exists(place.key) == 0
        other = Codec(keys("old")).fresh(place).wrapped
        await store.client.set(place.key, other)
        assert await store.call(LIBRARY.function("rewrap"), place.key, wrapped, fresh) == 0
        assert await store.client.get(place.key) == other

    async def test_writers_go_on_while_keys_change_under_them(self, store, made):
        written, is_over = [], asyncio.Event()

        async def write(process, number):
            memory, ledger, count = Memory(process), Ledger(process), 0
            while not is_over.is_set():
                name, count = TaskName("acme", "ann", f"t{number}-{count}"), count + 1
                await memory.pin(name, f"s{number}", f"{SECRET} {count % 7}")
                await ledger.forgo(("acme", "ann", name.task_id), "k", INTENT, SECRET.encode())
                written.append(name)

        async with process_with(store.url, "new", "old") as one, process_with(store.url, "old", "new") as other:
            writers = [asyncio.create_task(write(process, n)) for n, process in enumerate((one, other, one))]
            for _ in range(6):  # to and fro, so that many writers meet a key that has just changed
                await last(DataKeys(one, keys("old", "new")).rewrap())
                await last(DataKeys(one, keys("new", "old")).rewrap())
            is_over.set()
            await asyncio.gather(*writers)
            census = await last(DataKeys(one, keys("new", "old")).rewrap())
        assert census.is_of("new")
        assert len(written) > 10
        async with process_with(store.url, "new") as after:
            for name in written:
                outcome = await Ledger(after).look(("acme", "ann", name.task_id), "k")
                assert outcome == ("done", SECRET.encode())
            for number in range(3):
                assert (await Memory(after).load(TaskName("acme", "ann", "t"), f"s{number}")).facts

    async def test_keys_that_are_not_here_or_cannot_be_opened_are_counted_and_left(self, store):
        places = [SealPlace("acme", partition_key(0, "seal", f"acme/ann/t{n}")) for n in range(3)]
        wrapped = [Codec(keys("old")).fresh(place).wrapped for place in places]
        foreign = Codec(ContentKeys({"gone": os.urandom(32)})).fresh(places[1]).wrapped
        broken = wrapped[2][:-1] + bytes([wrapped[2][-1] ^ 1])
        for place, content in zip(places, (wrapped[0], foreign, broken), strict=True):
            await store.client.set(place.key, content)
        await store.client.set(partition_key(0, "seal", "acme/ann/t9"), MARK)
        await store.client.hset(partition_key(MESH, "seal"), mapping={"old": b"1", "gone": b"1"})
        census = await last(DataKeys(store, keys("new", "old")).rewrap())
        assert (census.held, census.unreadable) == ({"new": 1, "gone": 1}, 2)
        assert not census.is_of("new")
        assert await store.client.get(places[1].key) == foreign
        assert await store.client.get(places[2].key) == broken
        assert await store.client.hlen(partition_key(MESH, "seal")) == 2  # nothing is forgotten before all is well

    async def test_old_keys_that_hold_nothing_are_forgotten(self, store):
        async with process_with(store.url, "old"), process_with(store.url, "new", "old") as rotated:
            assert await store.client.hkeys(partition_key(MESH, "seal")) == [b"old", b"new"]
            await last(DataKeys(rotated, keys("new", "old")).rewrap())
            assert await store.client.hkeys(partition_key(MESH, "seal")) == [b"new"]
        with pytest.raises(SetupError, match="encrypted with new"):
            async with process_with(store.url, "old"):
                pass


@given(tenant=NAMES, principal=NAMES, one=NAMES, partitions=st.sampled_from([1, 16]))
def test_whose_a_data_key_is_can_be_told_from_its_place(tenant, principal, one, partitions):
    name = TaskName(tenant, principal, one)
    session = one.replace(":", "")
    for place in (
        tree_place(name, partitions),
        session_place(name, session),
        memories_place(name, "s1"),
        memories_place(name, ""),
        answers_place(name, "-"),
    ):
        assert tenant in tenants_of(place.key)


@pytest.mark.parametrize(
    "key", ["", "mw:{0}:task:a/b/c", "mw:{0}:sealed", "mw:{}:seal", "mw:{0}x:seal", "other:{0}:seal:a/b/c"]
)
def test_what_is_no_place_of_a_data_key_is_nobodys(key):
    assert tenants_of(key) == []


@pytest.fixture
def keys_file(tmp_path, monkeypatch, valkey):
    """Writes the file of keys that the command reads: `keys_file("new", "old")`."""
    path = tmp_path / "content.keys"
    monkeypatch.setenv("MESHWRIGHT_CONTENT_KEYS_FILE", str(path))
    monkeypatch.setenv("MESHWRIGHT_STORE_URL", valkey.url)

    def write(*ids):
        lines = [f"{key_id} {base64.b64encode({'old': OLD, 'new': NEW}[key_id]).decode()}\n" for key_id in ids]
        path.write_text("".join(lines))
        path.chmod(0o600)

    return write


async def command(*arguments):
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def fill(store, many):
    """Writes data keys under the old master key; returns their places."""
    codec = Codec(keys("old"))
    places = [SealPlace(f"tenant{n % 5}", partition_key(0, "seal", f"tenant{n % 5}/ann/t{n}")) for n in range(many)]
    for start in range(0, many, BATCH):
        batch = places[start : start + BATCH]
        await store.run(*(("SET", place.key, codec.fresh(place).wrapped) for place in batch))
    return places


async def opened_with(store, places, *ids):
    """Opens all data keys; returns the ids of the master keys that they took."""
    codec, found = Codec(keys(*ids)), set()
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        for place, wrapped in zip(batch, await store.run(*(("GET", one.key) for one in batch)), strict=True):
            assert not codec.open(place, wrapped).is_missing
            found.add(wrapping_id(place, wrapped))
    return found


class TestCommand:
    async def test_it_says_what_each_key_holds_and_when_one_may_go(self, store, keys_file):
        await fill(store, 3)
        keys_file("new", "old")
        counted = await command("store", "rewrap", "--dry-run")
        assert counted.exit_code == 1
        assert counted.stdout.splitlines() == [
            "new holds 0 data key(s), and all that are new",
            "old holds 3 data key(s): run `meshwright store rewrap`",
        ]
        assert await store.client.exists(partition_key(MESH, "seal")) == 0
        for _ in range(2):
            done = await command("store", "rewrap")
            assert (done.exit_code, done.stdout.splitlines()) == (
                0,
                [
                    "new holds 3 data key(s), and all that are new",
                    "old holds nothing: where no process has it as its first, it may be taken out",
                ],
            )
        keys_file("old")
        behind = await command("store", "rewrap", "--dry-run")
        assert behind.exit_code == 1
        assert "new holds 3 data key(s) and is not in MESHWRIGHT_CONTENT_KEYS_FILE" in behind.stdout

    async def test_it_asks_for_the_file_of_keys(self, store, monkeypatch):
        monkeypatch.setenv("MESHWRIGHT_STORE_URL", store.url)
        monkeypatch.delenv("MESHWRIGHT_CONTENT_KEYS_FILE", raising=False)
        done = await command("store", "rewrap")
        assert isinstance(done.exception, SetupError)
        assert "MESHWRIGHT_CONTENT_KEYS_FILE" in done.exception.message

    async def test_the_doctor_says_as_long_as_an_old_key_may_be_needed(self, store, keys_file):
        async with process_with(store.url, "old"), process_with(store.url, "new", "old"):
            await fill(store, 1)
        keys_file("new", "old")
        assert "content keys: each of new, old may still be needed" in (await command("doctor", "--production")).stdout
        assert (await command("store", "rewrap")).exit_code == 0
        assert "content keys" not in (await command("doctor", "--production")).stdout

    async def test_one_that_is_killed_leaves_all_readable_and_the_next_goes_on(self, store, keys_file):
        places = await fill(store, 10_000)
        keys_file("new", "old")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshwright.cli.main", "store", "rewrap"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        sample = places[:: len(places) // 20]
        while "new" not in await opened_with(store, sample, "new", "old"):
            await asyncio.sleep(0)
        process.kill()
        await process.wait()
        assert await opened_with(store, places, "new", "old") == {"new", "old"}
        assert (await command("store", "rewrap")).exit_code == 0
        assert await opened_with(store, places, "new") == {"new"}
