"""Content at rest: nothing of it is found in the store, and nothing is read that was changed, moved or deleted."""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import sys
import textwrap
import time
from pathlib import Path

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.answers import Answers, Kept
from meshwright.agents.costs import Costs
from meshwright.agents.embedders.hashing import HashingEmbedder
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.escrow import Escrow, counters_of
from meshwright.agents.feed import Feeds
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.memory import Memory
from meshwright.agents.models.prices import Prices
from meshwright.agents.question import Question
from meshwright.agents.recall import LongTermMemory, Origin, Origins, Place
from meshwright.agents.session import Sessions
from meshwright.agents.shared_limits import SharedLimits
from meshwright.core.codec import Codec, ContentKeys
from meshwright.core.errors import ContentKeyMissingError, DataLossError, InputNotPendingError, MeshError
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionRequest, GetSessionRequest, PinFactRequest
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_OPEN,
    InputResolved,
    ModelReservation,
    StepEvent,
    TaskStarted,
    TextDelta,
)
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    EmbeddingUsage,
    TaskRequest,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import COST_GROUPING_SESSION, GetCostsRequest
from meshwright.registry import tool
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY
from meshwright.registry.store import Ledger

KEY, NEXT = os.urandom(32), os.urandom(32)
SECRET = "The code is 7319."
READS = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1),
    b"list": ("LRANGE", 0, -1),
    b"stream": ("XRANGE", "-", "+"),
}


def codec(**keys):
    return Codec(ContentKeys(keys or {"own": KEY}))


@pytest.fixture
def own_keys(tmp_path):
    """A file with the key of these tests."""
    path = tmp_path / "own.keys"
    path.write_text(f"own {base64.b64encode(KEY).decode()}\n")
    path.chmod(0o600)
    return path


@contextlib.asynccontextmanager
async def process_with(url, **keys):
    """Opens the store as a process of its own does."""
    opened = Store(url, LIBRARY, REGISTRY_LIBRARY, codec=codec(**keys))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def store(valkey):
    """An open and empty store; who opens it thus has no keys."""
    opened = Store(valkey.url, LIBRARY, REGISTRY_LIBRARY, codec=Codec())
    await opened.client.flushall()
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def sealed(store):
    """A store whose content is encrypted."""
    async with process_with(store.url) as opened:
        yield opened


@pytest.fixture
def journal(sealed):
    """A journal on it, owned by `one`."""
    return Journal(sealed, "one")


async def held(store):
    """Reads all that a store holds, key by key."""
    found = {}
    async for key in store.client.scan_iter(count=1_000):
        (kind,) = await store.run(("TYPE", key))
        command, *rest = READS[kind]
        (found[key.decode()],) = await store.run((command, key, *rest))
    return found


async def bearing(store, word):
    """Lists the keys in which a word stands, or in what they hold."""
    return sorted(key for key, value in (await held(store)).items() if word in key or word in repr(value))


async def files_of(store):
    """Writes all that a store holds to its files, not compressed, and returns these."""
    await store.client.config_set("rdbcompression", "no")
    await store.client.execute_command("SAVE")
    folder = Path((await store.client.config_get("dir"))["dir"])
    return [path for path in folder.rglob("*") if path.is_file()]


async def contents(store):
    """Dumps every key but those that hold data keys."""
    keys = [key async for key in store.client.scan_iter(count=1_000) if b":seal" not in key]
    return {key: await store.client.dump(key) for key in keys}


async def brought_back(store, dumps):
    for key, dump in dumps.items():
        await store.client.restore(key, 0, dump, replace=True)


@tool(effect="idempotent")
async def note(text: str) -> str:
    """Notes something, and says so at length."""
    return f"noted {text}-result " + f"{text}-file " * 8_000


def call(name, **arguments):
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


class Town:
    """Two agents that are told secrets by everybody, and a caller of them."""

    def __init__(self, word, teller, asker, sessions):
        self.word = word
        self.teller = teller
        self.asker = asker
        self.sessions = sessions

    async def talk(self):
        """Puts the word wherever somebody writes."""
        word = self.word
        await self.sessions.PinFact(PinFactRequest(session_id="s1", text=f"{word}-fact"))
        await self.teller.run(f"{word}-prompt", session_id="s1", task_id="t1", metadata={"for": f"{word}-label"})
        await self.asker.submit(f"{word}-open", task_id="t2")
        (pending,) = await self.asker.asked("t2")
        assert pending.prompt == f"{word}-question"
        await self.asker.submit(f"{word}-cancelled", task_id="t3")
        await self.asker.asked("t3")
        await self.asker.cancel("t3", f"{word}-reason")


@pytest.fixture
async def town(mesh, dial):
    """Starts agents with a file of keys, or without."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(keys_file):
            word = f"canary-{secrets.token_hex(6)}"
            told = [
                call("note", text=f"{word}-argument"),
                call("memory.remember", fact=f"{word}-memory", pin=True),
                {"text": f"It is {word}-answer."},
            ]
            teller = await mesh.agent(
                Agent("teller", "Tell.", tools=[note], remembers=True, cache="exact"),
                script=json.dumps({"agents": {"default": told}}),
                content_keys_file=keys_file,
            )
            asking = [call("ask.person", question=f"{word}-question")]
            asker = await mesh.agent(
                Agent("asker", "Ask.", asks_people=True),
                script=json.dumps({"agents": {"default": asking}}),
                content_keys_file=keys_file,
            )
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(teller.server.target))
            return Town(word, dial(teller), dial(asker), SessionServiceStub(channel))

        yield start


class TestCanary:
    async def test_nothing_that_anybody_wrote_is_found_in_the_store_or_its_files(self, town, store, own_keys):
        told = await town(str(own_keys))
        await told.talk()
        assert await bearing(store, told.word) == []
        assert [path.name for path in await files_of(store) if told.word.encode() in path.read_bytes()] == []
        shown = await told.sessions.GetSession(GetSessionRequest(session_id="s1", turns=5))
        assert f"{told.word}-answer" in shown.turns[0].output
        assert {fact.text for fact in shown.facts} == {f"{told.word}-fact", f"{told.word}-memory"}
        assert told.word in str(await told.teller.watch("t1"))

    async def test_without_keys_all_of_it_is_found(self, town, store):
        told = await town("")
        await told.talk()
        nouns = {key.split(":")[2] for key in await bearing(store, told.word)}
        assert {"task", "log", "blob", "inputs", "ledger", "session", "memory"} <= nouns
        assert [path for path in await files_of(store) if told.word.encode() in path.read_bytes()]


class TestDeletion:
    async def test_a_session_that_was_deleted_cannot_be_read_from_a_dump(self, town, store, own_keys, made):
        told = await town(str(own_keys))
        await told.talk()
        dumps = await contents(store)
        await told.sessions.DeleteSession(DeleteSessionRequest(session_id="s1"))
        left = [key for key in await held(store) if ":seal" in key]
        assert [key for key in left if "s1" in key or "t1" in key] == []
        await brought_back(store, dumps)
        async with process_with(store.url) as opened:
            name, journal, memory = made.name("t1"), Journal(opened, "reader"), Memory(opened)
            for read in (
                journal.record(name),
                journal.read(name, 0),
                memory.load(name, "s1"),
                memory.about(name, "s1", 5),
                anext(Origins(opened).memories(name, "s1")),
            ):
                with pytest.raises(DataLossError, match="gone"):
                    await read
            response = await journal.response(name)
            assert MeshError.from_status(response.error).reason == "DATA_LOSS"
            assert not response.output

    async def test_the_key_of_a_task_ends_with_the_task(self, journal, sealed, made, claimed):
        claim = await claimed(made.task())
        child = await claimed(made.child(made.task()))
        await journal.finish(child, "COMPLETED", [made.result()])
        await journal.finish(claim, "COMPLETED", [made.result()])
        assert [key for key in await held(sealed) if ":seal" in key and "mesh" not in key]
        await sealed.client.zadd(partition_key(0, "expiry"), {claim.name.ref: 0, child.name.ref: 0})
        await journal.purge(0)
        assert [key for key in await held(sealed) if ":seal" in key and "mesh" not in key] == []


class TestRotation:
    async def test_a_new_key_writes_and_the_old_one_still_reads(self, store, journal, made, claimed):
        claim = await claimed(made.task(), made.notice(SECRET))
        async with process_with(store.url, next=NEXT, own=KEY) as rotated:
            later = Journal(rotated, "two")
            assert [entry.event("t1").notice.detail for entry in await later.read(claim.name, 0)] == [SECRET]
            await claimed(made.task("t2"), made.notice(SECRET), by=later)
        async with process_with(store.url) as behind:
            with pytest.raises(ContentKeyMissingError, match="next") as missing:
                await Journal(behind, "three").record(made.name("t2"))
            assert missing.value.metadata["content_key"] == "next"

    async def test_a_task_from_before_there_were_keys_goes_on_with_them(self, store, made, claimed, sealed):
        before = Journal(store, "one")
        claim = await claimed(made.task(), made.notice("Plain."), by=before)
        await Memory(store).pin(claim.name, "s1", "Plain fact.")
        after = Journal(sealed, "one")
        await after.append(claim, "k", [made.notice(SECRET)])
        assert [e.event("t1").notice.detail for e in await after.read(claim.name, 0)] == ["Plain.", SECRET]
        assert (await after.record(claim.name)).request.prompt == "Do it."
        await Memory(sealed).pin(claim.name, "s1", SECRET)
        assert [f.text for f in (await Memory(sealed).about(claim.name, "s1")).facts] == ["Plain fact.", SECRET]
        assert await bearing(store, SECRET) == []


WORKER = """
import asyncio, sys
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.task import NewTask, TaskName
from meshwright.core.codec import Codec
from meshwright.core.store import Store
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

async def main():
    store = Store({url!r}, LIBRARY, codec=Codec.of({keys!r}))
    await store.open()
    task = NewTask(
        TaskName("default", "default", "t1"), "worker", "h", TaskRequest(prompt={secret!r}), 3_600_000, root_id="t1"
    )
    events = [StepEvent(notice=RunnerNotice(detail={secret!r}))]
    await Journal(store, "doomed", lease_s=0.5).accept(task, claim=True, events=events)
    print("accepted", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


class TestOthers:
    async def test_who_takes_over_from_a_killed_process_reads_what_it_wrote(self, sealed, made, own_keys, becomes):
        code = textwrap.dedent(WORKER).format(url=sealed.url, keys=str(own_keys), secret=SECRET)
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        assert await worker.stdout.readline() == b"accepted\n"
        worker.kill()
        await worker.wait()
        successor = Journal(sealed, "successor", lease_s=0.5)

        async def is_taken():
            return (await successor.sweep(0)).taken

        await becomes(is_taken)
        offer = await successor.claim(0, "worker")
        assert (await successor.record(offer.claim.name)).request.prompt == SECRET
        assert [e.event("t1").notice.detail for e in await successor.read(offer.claim.name, 0)] == [SECRET]

    async def test_a_watcher_in_another_process_sees_events_and_deltas(self, store, journal, made, claimed, heard):
        claim = await claimed(made.task())
        child = await claimed(made.child(made.task()))
        async with process_with(store.url) as elsewhere:
            feeds = Feeds(Journal(elsewhere, "watcher"))
            await feeds.open({"worker": lambda _: None})
            watching = asyncio.create_task(self.seen(feeds, claim.name))
            await heard(claim.name)
            await journal.pass_on(child.name, StepEvent(delta=TextDelta(text="Well")))
            await journal.append(child, "k", [made.notice(SECRET)])
            await journal.finish(claim, "COMPLETED", [made.result(SECRET)])
            delta, told, result = await watching
            await feeds.close()
        assert delta.child.event.delta.text == "Well"
        assert told.child.event.notice.detail == SECRET
        assert result.result.output == SECRET

    async def seen(self, feeds, name):
        return [event async for event in feeds.follow(name, 0)]

    async def test_a_decision_on_a_childs_question_is_read_by_the_child(self, journal, made, claimed):
        await claimed(made.task())
        child = await claimed(made.child(made.task()))
        await journal.append(child, "k", [made.asks("in-1", prompt=SECRET)])
        (pending,) = await journal.inputs(made.name())
        assert (pending.prompt, pending.origin_task_id) == (SECRET, child.name.task_id)
        decision = StepEvent(input_resolved=InputResolved(input_id="in-1", reason=SECRET))
        await journal.resolve(made.name(), "in-1", "", decision)
        *_, last = await journal.read(child.name, 0)
        assert last.event(child.name.task_id).input_resolved.reason == SECRET
        with pytest.raises(InputNotPendingError):
            await journal.resolve(made.name(), "in-1", "", decision)

    async def test_an_outcome_in_the_ledger_is_read_where_it_counts_and_nowhere_else(
        self, sealed, journal, made, claimed
    ):
        await claimed(made.task())
        ledger, holder = Ledger(sealed), ("default", "default", "t1")
        facts = {"intent": "i" * 64, "timeout_s": 1, "may_rerun": False, "fence": 1, "token": "t"}
        assert await ledger.begin(holder, "k", **facts) == ("run", b"")
        assert await ledger.settle(holder, "k", "i" * 64, SECRET.encode()) == SECRET.encode()
        assert await ledger.settle(holder, "k", "i" * 64, b"later") == SECRET.encode()
        assert await ledger.look(holder, "k") == ("done", SECRET.encode())
        assert await bearing(sealed, SECRET) == []
        async with process_with(sealed.url) as elsewhere:
            assert await Ledger(elsewhere).begin(holder, "k", **facts) == ("done", SECRET.encode())
            outside = ("default", "default", "call-1")
            assert await Ledger(elsewhere).forgo(outside, "k", "i" * 64, b"none") == b"none"
            assert await sealed.client.pttl(partition_key(0, "seal", "default/default/call-1")) > 0
        entry = await sealed.client.hget(partition_key(0, "ledger", "default/default/t1"), "k")
        await sealed.client.hset(partition_key(0, "ledger", "default/default/t1"), "other", entry)
        with pytest.raises(DataLossError):
            await ledger.look(holder, "other")


class TestAnswers:
    async def kept(self, store, made):
        """Keeps an answer to a question of a session, and one to the same of none."""
        answers, found = Answers(store), []
        for number, session_id in enumerate(("s1", "")):
            question = Question(made.name(), "scope", f"id{number}", SECRET, bytes([127, number]))
            await answers.keep(question, Kept(SECRET, SECRET, "p", "m", 3, 4), session_id, 60_000)
            found.append(question)
        return answers, found

    async def test_they_are_found_by_id_and_by_vector_and_not_in_plain_words(self, sealed, made):
        answers, (one, other) = await self.kept(sealed, made)
        assert [(await answers.find(question)).text for question in (one, other)] == [SECRET, SECRET]
        assert [kept.question for kept in await answers.alike(one)] == [SECRET, SECRET]
        assert await bearing(sealed, SECRET) == []

    async def test_their_key_goes_with_their_session(self, sealed, made):
        answers, (one, other) = await self.kept(sealed, made)
        dumps = await contents(sealed)
        assert await answers.erase(made.name(), "s1") == 1
        await brought_back(sealed, dumps)
        async with process_with(sealed.url) as opened:
            assert await Answers(opened).find(one) is None
            assert (await Answers(opened).find(other)).text == SECRET

    async def test_one_that_was_changed_is_none(self, sealed, made):
        answers, (one, _) = await self.kept(sealed, made)
        key = partition_key("answers%2Fdefault", "answer", one.answer_id)
        await sealed.client.set(key, flipped(await sealed.client.get(key)), keepttl=True)
        assert await answers.find(one) is None


class TestMemories:
    async def test_their_key_goes_with_the_last_one_of_a_session(self, sealed, made):
        name = made.name()
        memory = LongTermMemory(sealed, MeteredEmbedder(HashingEmbedder(), Prices()))
        for number, session_id in enumerate(("s1", "s1", "")):
            origin = Origin("t1", session_id, is_tainted=False)
            await memory.remember(Place(name, "worker"), f"k{number}", SECRET, origin, EmbeddingUsage())
        assert await bearing(sealed, SECRET) == []
        hits = await memory.recall(Place(name, "worker"), SECRET, 5, EmbeddingUsage())
        assert [hit.memory.text for hit in hits] == [SECRET] * 3
        dumps = await contents(sealed)
        assert await Origins(sealed).erase(name, "s1") == 2
        await brought_back(sealed, dumps)
        async with process_with(sealed.url) as opened:
            with pytest.raises(DataLossError, match="gone"):
                await anext(Origins(opened).memories(name, "s1"))


def flipped(content, at=-1):
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


class TestTampering:
    async def test_an_event_that_was_moved_to_another_task_is_told(self, journal, sealed, made, claimed):
        one, other = await claimed(made.task("t1"), made.notice(SECRET)), await claimed(made.task("t2"))
        log = partition_key(0, "log", one.name.ref)
        ((_, fields),) = await sealed.client.xrange(log)
        await sealed.client.xadd(partition_key(0, "log", other.name.ref), fields, id="0-1")
        with pytest.raises(DataLossError):
            await journal.read(other.name, 0)

    @pytest.mark.parametrize("field", ["request", "cancel"])
    async def test_a_record_that_was_changed_is_told_and_shows_what_is_plain(
        self, journal, sealed, made, claimed, field
    ):
        claim = await claimed(made.task())
        await journal.cancel(claim.name, SECRET)
        assert (await journal.record(claim.name)).cancel == SECRET
        record = partition_key(0, "task", claim.name.ref)
        await sealed.client.hset(record, field, flipped(await sealed.client.hget(record, field)))
        with pytest.raises(DataLossError):
            await journal.record(claim.name)
        response = await journal.response(claim.name)
        assert MeshError.from_status(response.error).reason == "DATA_LOSS"
        assert response.agent_id == "worker"

    @pytest.mark.parametrize("what", ["request", "seal"])
    async def test_a_task_that_cannot_be_read_fails_and_keeps_nobody_waiting(
        self, mesh, dial, store, own_keys, becomes, what
    ):
        settings = {
            "content_keys_file": str(own_keys),
            "script": json.dumps({"agents": {"default": [{"text": "Hm."}]}}),
        }
        server = dial(await mesh.agent(Agent("worker", "Work."), role="server", **settings))
        await server.submit(SECRET, task_id="t1")
        await server.submit(SECRET, task_id="t2")
        if what == "request":
            record = partition_key(0, "task", "default/default/t1")
            await store.client.hset(record, "request", flipped(await store.client.hget(record, "request")))
        else:
            seal = partition_key(0, "seal", "default/default/t1")
            await store.client.set(seal, flipped(await store.client.get(seal)))
        await mesh.agent(Agent("worker", "Work."), role="worker", **settings)

        async def have_ended():
            return [(await server.get(one)).status for one in ("t1", "t2")] == [
                TASK_STATUS_FAILED,
                TASK_STATUS_COMPLETED,
            ]

        await becomes(have_ended)
        assert MeshError.from_status((await server.get("t1")).error).reason == "DATA_LOSS"

    @pytest.mark.parametrize("what", ["request", "seal"])
    async def test_the_money_of_a_task_that_cannot_be_read_is_counted_and_the_rest_is_free_again(
        self, mesh, sealed, store, own_keys, made, becomes, what
    ):
        ghost = Journal(sealed, "ghost", lease_s=0.05)
        request = TaskRequest(prompt=SECRET, session_id="s1", token_budget=512)
        task = made.task(request=request, shared=SharedLimits(session=10**6, tenant_day=10**6))
        accepted = await ghost.accept(task, claim=True, events=[StepEvent(started=TaskStarted(agent_id="worker"))])
        name, sessions = task.name, Sessions(ghost)
        await sessions.enter(name, "s1")
        escrow = Escrow(ghost, SharedLimits())
        assert await escrow.take(await ghost.record(name), 1, 600) == 50_000
        reserved = ModelReservation(model="m", cost_micros=600, state=RESERVATION_STATE_OPEN)
        await ghost.spend(accepted.claim, "r", [StepEvent(reservation=reserved)], "1 50000", is_progress=False)
        noun, field = ("task", "request") if what == "request" else ("seal", None)
        key = partition_key(0, noun, name.ref)
        if field:
            await store.client.hset(key, field, flipped(await store.client.hget(key, field)))
        else:
            await store.client.set(key, flipped(await store.client.get(key)))
        script = json.dumps({"agents": {"default": [{"text": "Hm."}]}})
        await mesh.agent(Agent("worker", "Work."), content_keys_file=str(own_keys), script=script, lease_s=0.5)
        counters = counters_of(task.shared, name, "s1", int(time.time() * 1000))
        slots = [partition_key(one.slot, "escrow") for one in counters]
        assert len(slots) == 2

        async def is_settled():
            return [int(await store.client.get(slot) or 0) for slot in slots] == [600, 600]

        await becomes(is_settled)
        response = await ghost.response(name)
        assert MeshError.from_status(response.error).reason == "DATA_LOSS"
        table = await Costs(ghost).table("default", GetCostsRequest(by=COST_GROUPING_SESSION))
        (row,) = table.rows  # which agent and model it was stands in the journal, and is lost
        assert (row.name, row.cost_micros, row.estimated_cost_micros) == ("default/s1", 600, 600)
        if what == "request":
            assert await sessions.is_turn(made.name("t9"), "s1", is_alone=True)

    async def test_a_session_that_was_changed_is_told_and_can_be_deleted(self, sealed, made, erasure):
        memory, name = Memory(sealed), made.name()
        await memory.pin(name, "s1", SECRET)
        facts = partition_key("default%2Fdefault%2Fs1", "session", "facts")
        ((fact_id, fact),) = (await sealed.client.hgetall(facts)).items()
        await sealed.client.hset(facts, fact_id, flipped(fact))
        with pytest.raises(DataLossError):
            await memory.load(name, "s1")
        await erasure.erase(name, "s1")
        assert (await memory.load(name, "s1")).facts == ()

    async def test_a_session_that_begins_anew_has_a_new_key(self, sealed, store, made, erasure):
        name = made.name()
        async with process_with(store.url) as elsewhere:
            await Memory(sealed).pin(name, "s1", "Old.")
            assert (await Memory(elsewhere).load(name, "s1")).facts == ("Old.",)
            reader = Memory(elsewhere)
            await reader.load(name, "s1")
            await erasure.erase(name, "s1")
            await Memory(sealed).pin(name, "s1", "New.")
            assert (await reader.load(name, "s1")).facts == ("New.",)

    async def test_a_turn_is_remembered_once_and_not_in_plain_words(self, sealed, made):
        sessions, name = Sessions(Journal(sealed, "one")), made.name()
        await sessions.enter(name, "s1")
        request = TaskRequest(prompt=SECRET, session_id="s1")
        done = TaskResponse(status=TASK_STATUS_COMPLETED, output=SECRET)
        await sessions.leave(name, request, done)
        await sessions.leave(name, request, done)
        assert [turn.prompt for turn in (await Memory(sealed).load(name, "s1")).turns] == [SECRET]
        assert await bearing(sealed, SECRET) == []
