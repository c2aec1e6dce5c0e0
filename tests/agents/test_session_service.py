"""SessionService over real gRPC: sessions are listed, shown, exported, pinned to, and deleted without a trace."""

import asyncio
import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.costs import Costs
from meshwright.agents.escrow import Escrow, counters_of
from meshwright.agents.memory import LOADED, Memory
from meshwright.agents.models.model import Answer, Usage, estimated_tokens
from meshwright.agents.session import Sessions
from meshwright.agents.shared_limits import SharedLimits
from meshwright.core.errors import MeshError, SessionBusyError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.session_service_pb2 import (
    DeleteSessionRequest,
    ExportSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    PinFactRequest,
    UnpinFactRequest,
)
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import LlmCall, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import COST_GROUPING_SESSION, GetCostsRequest
from tests.conftest import WITH_CODEC

DONE = {"text": "Done."}
HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}
SECRET = "xylophone"


class Reader:
    """A model that answers with the line of its prompt that names the code, and notes how long its prompts are."""

    provider = name = "reader"

    def __init__(self):
        self.prompts = []

    async def answer(self, prompt, on_text):
        self.prompts.append(prompt)
        lines = [line for message in prompt.messages[:-1] for line in message.text.splitlines()]
        return Answer(
            next((line for line in lines if "code" in line), "I do not know."), (), Usage(1, 1), "reader", "r"
        )

    async def close(self):
        pass


@pytest.fixture
async def sessions_of():
    """Connects to an agent's SessionService."""
    channels = []

    def connected(process):
        channels.append(grpc.aio.insecure_channel(process.server.target))
        return SessionServiceStub(channels[-1])

    yield connected
    for channel in channels:
        await channel.close()


@pytest.fixture
def start(mesh, dial, gate, sessions_of):
    """Starts an agent with a script; connects to its tasks and to its sessions."""

    async def started(*replies, **facts):
        script = json.dumps({"agents": {"default": list(replies)}})
        process = await mesh.agent(Agent("worker", "Work.", tools=[gate.tool], **facts), script=script)
        return dial(process), sessions_of(process)

    return started


@pytest.fixture
def remember(journal, made, store):
    """Fills a session with finished tasks as the runtime does, without running them."""
    memory, sessions = Memory(store), Sessions(journal)

    async def filled(session_id, turns):
        for number in range(turns):
            name = made.name(f"{session_id}-{number}")
            await sessions.enter(name, session_id)
            request = TaskRequest(prompt=f"Question {number} about boats?", session_id=session_id)
            output = f"Boat {number} is {number % 97} metres long. " + "It has sails and a mast. " * 20
            await sessions.leave(name, request, TaskResponse(status=TASK_STATUS_COMPLETED, output=output))
            await memory.settle(name, session_id)

    return filled


READ = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "stream": lambda client, key: client.xrange(key),
}


async def everything(store):
    """Reads all keys of the store but the catalog's, with what they hold, as one text."""
    found = []
    async for key in store.client.scan_iter(count=1_000):
        if b"{mesh}" in key:
            continue
        kind = (await store.client.type(key)).decode()
        if kind != "none":  # gone meanwhile
            found.append(f"{key!r} {await READ[kind](store.client, key)!r}")
    return "\n".join(found)


def outside_audit(text):
    """Leaves the lines of the audit away: they hold ids, and no content."""
    return "\n".join(line for line in text.splitlines() if ":audit:" not in line)


def reason(error):
    return MeshError.from_rpc(error.value).reason


async def test_a_long_session_stays_in_its_window_answers_about_an_early_fact_and_is_gone_after_delete(
    mesh, dial, sessions_of, remember, store, becomes
):
    """A thousand turns."""
    model = Reader()
    agent = Agent("reader", "Read.", model=model, context_window=4_096)
    process = await mesh.agent(agent)
    client, sessions = dial(process), sessions_of(process)
    await sessions.PinFact(PinFactRequest(session_id="long", text="The code is code-of-seven-words."))
    await remember("long", 1_000)
    task = await client.run("What is the code?", session_id="long", task_id="after")
    assert task.output == "- The code is code-of-seven-words."
    (prompt,) = model.prompts
    said = sum(estimated_tokens(message.text) for message in prompt.messages)
    assert said + estimated_tokens(prompt.instructions) + prompt.max_output_tokens <= 4_096
    texts = [message.text for message in prompt.messages]
    assert "Question 999 about boats?" in texts
    compacted = [e.context_compacted for e in await client.watch("after") if e.HasField("context_compacted")]
    assert len(compacted) == 1
    assert 0 < compacted[0].turns <= LOADED
    await becomes(lambda: is_counted(sessions, "long", 1_001))
    deleted = await sessions.DeleteSession(DeleteSessionRequest(session_id="long"))
    assert deleted.tasks == 1
    left = await everything(store)
    for trace in ("boat", "Boat", "code-of-seven-words"):
        assert trace not in left, left
    for trace in ("long", "after"):
        assert trace not in outside_audit(left), left
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await sessions.GetSession(GetSessionRequest(session_id="long"))
    assert reason(gone) == "SESSION_NOT_FOUND"


async def is_counted(sessions, session_id, turns):
    return (await sessions.GetSession(GetSessionRequest(session_id=session_id))).turn_count == turns


class TestShow:
    async def test_a_session_shows_facts_summary_and_latest_turns(self, start, remember):
        _, sessions = await start(DONE)
        fact = await sessions.PinFact(PinFactRequest(session_id="s1", text="Sails are red."))
        await remember("s1", 30)
        session = await sessions.GetSession(GetSessionRequest(session_id="s1", turns=3))
        assert [turn.task_id for turn in session.turns] == ["s1-27", "s1-28", "s1-29"]
        assert session.turn_count == 30
        assert list(session.facts) == [fact]
        assert session.summary.startswith("- Asked: Question 0 about boats? Answered: Boat 0 is 0 metres long.")
        await sessions.UnpinFact(UnpinFactRequest(session_id="s1", fact_id=fact.fact_id))
        assert not (await sessions.GetSession(GetSessionRequest(session_id="s1"))).facts

    async def test_sessions_are_listed_page_by_page(self, start):
        _, sessions = await start(DONE)
        for number in range(5):
            await sessions.PinFact(PinFactRequest(session_id=f"s{number}", text="Yes."))
        seen, token = [], ""
        while True:
            page = await sessions.ListSessions(ListSessionsRequest(page_size=2, page_token=token))
            seen += [session.session_id for session in page.sessions]
            if not (token := page.next_page_token):
                break
        assert sorted(seen) == [f"s{number}" for number in range(5)]

    async def test_an_export_holds_the_session_and_every_turn_and_memory(self, start, remember, store):
        _, sessions = await start(DONE)
        await remember("s1", 25)
        entries = [entry async for entry in sessions.ExportSession(ExportSessionRequest(session_id="s1"))]
        assert [entry.WhichOneof("entry") for entry in entries] == ["session"] + 25 * ["turn"]
        assert entries[1].turn.prompt == "Question 0 about boats?"

    @pytest.mark.parametrize(
        ("method", "request_", "field"),
        [
            ("GetSession", GetSessionRequest(session_id="a b"), "session_id"),
            ("GetSession", GetSessionRequest(), "session_id"),
            ("GetSession", GetSessionRequest(session_id="s1", turns=201), "turns"),
            ("ListSessions", ListSessionsRequest(page_size=-1), "page_size"),
            ("ListSessions", ListSessionsRequest(page_token="x"), "page_token"),
            ("DeleteSession", DeleteSessionRequest(session_id="x" * 65), "session_id"),
            ("PinFact", PinFactRequest(session_id="s1"), "text"),
            ("UnpinFact", UnpinFactRequest(session_id="s1", fact_id="*"), "fact_id"),
        ],
    )
    async def test_a_wrong_field_is_named(self, start, method, request_, field):
        _, sessions = await start(DONE)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(sessions, method)(request_)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert field in MeshError.from_rpc(refused.value).fields

    async def test_what_is_not_there_is_not_found(self, start):
        _, sessions = await start(DONE)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await sessions.GetSession(GetSessionRequest(session_id="none"))
        assert reason(missing) == "SESSION_NOT_FOUND"
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await anext(aiter(sessions.ExportSession(ExportSessionRequest(session_id="none"))))
        assert reason(missing) == "SESSION_NOT_FOUND"


class TestDelete:
    async def test_all_that_tasks_left_is_gone_with_those_below_them(self, start, store, journal, mesh, dial, becomes):
        asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": f"Play the {SECRET}."}}]}
        client, sessions = await start(DONE)
        script = json.dumps({"agents": {"default": [asks, DONE]}})
        boss = dial(await mesh.agent(Agent("boss", "Lead.", delegates=["worker"]), script=script))
        await boss.run(f"Buy a {SECRET}.", session_id="s1", task_id="ours")
        await client.run("Another.", session_id="s2", task_id="other")
        assert (SECRET in await everything(store)) is not WITH_CODEC
        await becomes(lambda: is_counted(sessions, "s1", 1))
        deleted = await sessions.DeleteSession(DeleteSessionRequest(session_id="s1"))
        assert deleted.tasks == 1
        left = await everything(store)
        assert SECRET not in left
        assert "ours" not in outside_audit(left)
        assert (await client.get("other")).status == TASK_STATUS_COMPLETED
        listed = await sessions.ListSessions(ListSessionsRequest())
        assert "s1" not in [session.session_id for session in listed.sessions]

    async def test_a_deleted_id_is_not_taken_again(self, start, becomes):
        client, sessions = await start(DONE)
        await client.run(session_id="s1", task_id="t1")
        await sessions.DeleteSession(DeleteSessionRequest(session_id="s1"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(session_id="s1", task_id="t1")
        assert reason(refused) == "TASK_EXPIRED"

    async def test_deleting_what_is_not_there_or_again_changes_nothing(self, start):
        _, sessions = await start(DONE)
        for _ in range(2):
            deleted = await sessions.DeleteSession(DeleteSessionRequest(session_id="none"))
            assert (deleted.tasks, deleted.memories) == (0, 0)

    async def test_a_session_with_a_task_that_runs_is_left_alone(self, start, gate, becomes):
        client, sessions = await start(HOLD, DONE)
        await client.submit(session_id="s1", task_id="t1")
        await gate.holds()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await sessions.DeleteSession(DeleteSessionRequest(session_id="s1"))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert reason(refused) == "SESSION_BUSY"
        gate.open()
        await client.ended("t1")
        await becomes(lambda: is_counted(sessions, "s1", 1))
        assert (await sessions.DeleteSession(DeleteSessionRequest(session_id="s1"))).tasks == 1

    async def test_a_session_into_which_a_task_just_comes_is_left_alone(self, erasure, journal, made, store):
        await Sessions(journal).enter(made.name(), "s1")
        with pytest.raises(SessionBusyError):
            await erasure.erase(made.name(), "s1")

    async def test_an_end_that_is_told_afterwards_brings_nothing_back(self, erasure, journal, made, claimed, store):
        sessions, request = Sessions(journal), TaskRequest(prompt=SECRET, session_id="s1")
        claim = await claimed(made.task(request=request))
        await sessions.enter(claim.name, "s1")
        await journal.finish(claim, "COMPLETED", [made.result(SECRET)])
        response = await journal.response(claim.name)
        await erasure.erase(made.name(), "s1")
        await sessions.leave(claim.name, request, response)
        await Memory(store).settle(claim.name, "s1")
        left = await everything(store)
        assert SECRET not in left
        assert "s1" not in outside_audit(left)

    async def test_what_a_task_has_cost_is_counted_and_returned_though_its_session_is_deleted_at_once(
        self, erasure, journal, made, claimed, store
    ):
        task = made.task(request=TaskRequest(prompt=SECRET, session_id="s1"), shared=SharedLimits(session=10**6))
        claim = await claimed(task)
        record = await journal.record(claim.name)
        await Escrow(journal, SharedLimits()).take(record, 1, 100)
        await journal.append(claim, "a", [StepEvent(llm_call=LlmCall(usage={"cost_micros": 30}))])
        result = TaskResponse(status=TASK_STATUS_COMPLETED, usage={"cost_micros": 30})
        await journal.finish(claim, "COMPLETED", [StepEvent(result=result)])
        await erasure.erase(made.name(), "s1")
        (slot,) = [counter.slot for counter in counters_of(task.shared, task.name, "s1", record.created)]
        assert await store.client.get(partition_key(slot, "escrow")) == b"30"
        table = await Costs(journal).table("default", GetCostsRequest(by=COST_GROUPING_SESSION))
        assert [(row.name, row.cost_micros) for row in table.rows] == [("*", 30)]
        assert not [
            line for line in outside_audit(await everything(store)).splitlines() if "s1" in line or "t1" in line
        ]

    @pytest.mark.parametrize("steps", range(7))
    async def test_one_that_broke_off_is_ended_by_repeating_it(
        self, erasure, outbox, journal, made, claimed, store, steps, monkeypatch
    ):
        for number in range(3):
            request = TaskRequest(prompt=SECRET, session_id="s1")
            claim = await claimed(made.task(f"t{number}", request=request))
            await Sessions(journal).enter(claim.name, "s1")
            await journal.finish(claim, "COMPLETED", [made.result(SECRET)])
            await outbox.relay(0)
        done = 0
        call = store.call

        async def broken(*arguments):
            nonlocal done
            if done == steps:
                raise asyncio.CancelledError
            done += 1
            return await call(*arguments)

        monkeypatch.setattr(store, "call", broken)
        try:
            await erasure.erase(made.name(), "s1")
        except asyncio.CancelledError:
            assert steps < 6
        monkeypatch.setattr(store, "call", call)
        await erasure.erase(made.name(), "s1")
        left = await everything(store)
        assert SECRET not in left
        assert "s1" not in outside_audit(left)

    async def test_its_tasks_are_found_in_every_partition(self, erasure, journal, made, claimed, store, monkeypatch):
        monkeypatch.setattr(store, "partitions", 4)
        for number in range(12):
            request = TaskRequest(prompt=SECRET, session_id="s1")
            claim = await claimed(made.task(f"t{number}", request=request))
            await journal.finish(claim, "FAILED", [made.result(SECRET)])
        deleted = await erasure.erase(made.name(), "s1")
        assert deleted.tasks == 12
        assert SECRET not in await everything(store)

    async def test_sessions_of_others_stay(self, erasure, journal, made, store):
        memory = Memory(store)
        for principal in ("ann", "bob"):
            await memory.pin(made.name(principal=principal), "s1", f"I am {principal}.")
        await erasure.erase(made.name(principal="ann"), "s1")
        assert not await memory.load(made.name(principal="ann"), "s1")
        assert (await memory.load(made.name(principal="bob"), "s1")).facts == ("I am bob.",)
