"""Long-term memory: what was remembered is found by what it is about, by its holder and its agent alone."""

import json

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents import remembering
from meshwright.agents.agent import Agent
from meshwright.agents.embedders.catalog import embedder_from
from meshwright.agents.embedders.embedder import DIMENSIONS
from meshwright.agents.embedders.hashing import HashingEmbedder, hashed
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.memory import Memory
from meshwright.agents.models.prices import Prices
from meshwright.agents.recall import LongTermMemory, Origin, Origins, Place, nearest, packed
from meshwright.agents.remembering import caller_of
from meshwright.core.errors import (
    MeshError,
    PermissionDeniedError,
    SetupError,
)
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionRequest
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.task_pb2 import EmbeddingUsage
from meshwright.registry.invocation import Invocation
from meshwright.registry.testing import ToolBench

FACTS = (
    "The customer's boat is called Albatross and lies in Hamburg.",
    "Invoices are sent on the first Monday of a month.",
    "Ann prefers short answers without tables.",
    "The pump was replaced in March by a stronger one.",
)


@pytest.fixture
def long_term(store):
    return LongTermMemory(store, MeteredEmbedder(HashingEmbedder(), Prices()))


@pytest.fixture
def place(made):
    return Place(made.name(), "worker")


def origin(session="s1", *, is_tainted=False):
    return Origin("t1", session, is_tainted)


async def fill(long_term, place, facts=FACTS, session="s1"):
    for number, fact in enumerate(facts):
        await long_term.remember(place, f"key-{session}-{number}", fact, origin(session), EmbeddingUsage())


class TestRecall:
    @pytest.mark.parametrize(
        ("question", "found"),
        [
            ("Where is the boat?", 0),
            ("When do we send an invoice?", 1),
            ("How long should answers for Ann be?", 2),
            ("Which pumps were replaced?", 3),
        ],
    )
    async def test_a_question_finds_what_it_is_about(self, long_term, place, question, found):
        await fill(long_term, place)
        hits = await long_term.recall(place, question, 3, EmbeddingUsage())
        assert hits[0].memory.text == FACTS[found]
        assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)

    async def test_a_hit_says_where_it_comes_from(self, long_term, place):
        kept = await long_term.remember(place, "k1", FACTS[0], origin("s7", is_tainted=True), EmbeddingUsage())
        (hit,) = await long_term.recall(place, FACTS[0], 1, EmbeddingUsage())
        assert hit.memory == kept
        assert (kept.task_id, kept.session_id, kept.agent_id, kept.tainted) == ("t1", "s7", "worker", True)
        assert kept.create_time.ToMilliseconds() > 0
        assert hit.similarity == pytest.approx(1, abs=0.02)

    async def test_what_has_nothing_in_common_is_not_found(self, long_term, place):
        await fill(long_term, place)
        assert await long_term.recall(place, "zzz qqq", 5, EmbeddingUsage()) == []
        assert await long_term.recall(Place(place.holder, "other"), FACTS[0], 5, EmbeddingUsage()) == []

    async def test_the_same_key_remembers_once(self, long_term, place):
        first = await long_term.remember(place, "k1", FACTS[0], origin(), EmbeddingUsage())
        again = await long_term.remember(place, "k1", FACTS[0], origin(), EmbeddingUsage())
        assert again == first
        assert len(await long_term.recall(place, FACTS[0], 5, EmbeddingUsage())) == 1

    async def test_memories_of_others_are_not_found(self, long_term, made, place):
        await fill(long_term, place)
        for holder in (made.name(principal="bob"), made.name(tenant="acme")):
            assert await long_term.recall(Place(holder, "worker"), FACTS[0], 5, EmbeddingUsage()) == []

    async def test_beyond_the_bound_the_oldest_go_without_a_trace(self, long_term, place, made, store, monkeypatch):
        monkeypatch.setattr("meshwright.agents.recall.MOST_MEMORIES", 2)
        await fill(long_term, place)
        assert [hit.memory.text for hit in await long_term.recall(place, FACTS[0], 5, EmbeddingUsage())][:1] != [
            FACTS[0]
        ]
        assert [memory.text async for memory in Origins(store).memories(made.name(), "s1")] == list(FACTS[2:])
        for noun in ("memory", "vectors"):
            keys = [key async for key in store.client.scan_iter(f"*:{noun}:*")]
            assert [await store.client.hlen(key) for key in keys] == [2]

    async def test_memories_of_a_session_go_with_it(self, long_term, place, made, store, erasure):
        await fill(long_term, place)
        await fill(long_term, place, ["It rains in Bremen."], session="s2")
        deleted = await erasure.erase(made.name(), "s1")
        assert deleted.memories == len(FACTS)
        assert [memory.text async for memory in Origins(store).memories(made.name(), "s1")] == []
        assert {hit.memory.session_id for hit in await long_term.recall(place, "Albatross", 5, EmbeddingUsage())} <= {
            "s2"
        }
        assert len(await long_term.recall(place, "Does it rain?", 5, EmbeddingUsage())) == 1
        await erasure.erase(made.name(), "s2")
        kept = [key async for key in store.client.scan_iter("*") if b"{mesh}" not in key]
        assert [key for key in kept if b":audit" not in key] == []


class TestEmbedding:
    @given(st.text(max_size=300))
    def test_a_vector_has_length_one_and_is_always_the_same(self, text):
        vector = hashed(text)
        assert len(vector) == DIMENSIONS
        assert vector == hashed(text)
        assert sum(number * number for number in vector) == pytest.approx(1) or not any(vector)

    @given(st.lists(st.floats(-1, 1), min_size=DIMENSIONS, max_size=DIMENSIONS))
    def test_any_vector_can_be_kept(self, vector):
        assert len(packed(vector)) == DIMENSIONS

    def test_vectors_of_another_length_are_passed_over(self):
        assert nearest(hashed("boat"), {b"a": b"\1\2", b"b": packed(hashed("boat"))}, 5)[0][1] == b"b"

    @pytest.mark.parametrize("spec", ["", "hash", "openai:", "openai:m@ftp://x", "openai:two words"])
    def test_an_unknown_embedder_is_refused(self, spec):
        with pytest.raises(SetupError, match="hashing"):
            embedder_from(spec)


class TestTools:
    @pytest.fixture
    def start(self, mesh, dial):
        async def started(*replies):
            script = json.dumps({"agents": {"default": list(replies)}})
            process = await mesh.agent(Agent("worker", "Work.", remembers=True), script=script)
            return process, dial(process)

        return started

    def call(self, name, **arguments):
        return {"tool_calls": [{"name": f"memory.{name}", "arguments": arguments}]}

    async def test_a_fact_of_one_session_is_recalled_in_another_and_goes_with_the_first(self, start):
        process, client = await start(
            self.call("remember", fact=FACTS[0]), self.call("recall", about="Where is the boat?"), {"text": "Done."}
        )
        await client.run(session_id="s1", task_id="t1")
        events = await client.steps(session_id="s2", task_id="t2")
        found = next(e.tool_result for e in events if e.tool_result.call_id and e.step == 2).result.list_value
        hit = found.values[0].struct_value.fields
        assert hit["text"].string_value == FACTS[0]
        assert {hit["session_id"].string_value, found.values[1].struct_value["session_id"]} == {"s1", "s2"}
        assert hit["agent_id"].string_value == "worker"
        async with grpc.aio.insecure_channel(process.server.target) as channel:
            stub = SessionServiceStub(channel)
            assert (await stub.DeleteSession(DeleteSessionRequest(session_id="s1"))).memories == 1

    async def test_a_pinned_fact_stands_in_the_next_prompts_of_the_session(self, start, store, made):
        _, client = await start(self.call("remember", fact="The code is 7319.", pin=True), {"text": "Done."})
        await client.run(session_id="s1", task_id="t1")
        assert (await Memory(store).load(made.name(), "s1")).facts == ("The code is 7319.",)
        about = await Memory(store).about(made.name(), "s1")
        assert about.facts[0].task_id == "t1"

    async def test_what_a_task_below_remembers_goes_with_the_session_above(self, start, mesh, dial, store, made):
        await start(self.call("remember", fact=FACTS[0]), {"text": "Done."})
        asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Remember it."}}]}
        script = json.dumps({"agents": {"default": [asks, {"text": "Done."}]}})
        boss = dial(await mesh.agent(Agent("boss", "Lead.", delegates=["worker"]), script=script))
        await boss.run(session_id="s1")
        assert [memory.text async for memory in Origins(store).memories(made.name(), "s1")] == [FACTS[0]]

    @pytest.mark.parametrize("agent_id", ["", "registry"])
    def test_a_call_from_outside_of_any_task_has_no_memories(self, agent_id):
        with pytest.raises(PermissionDeniedError):
            caller_of(Invocation("default", "default", "call-1", "key", agent_id))

    async def test_without_a_session_there_is_nothing_to_pin_to(self, start):
        _, client = await start(self.call("remember", fact="The code is 7319.", pin=True), {"text": "Done."})
        events = await client.steps()
        (error,) = [e.tool_result.error for e in events if e.HasField("tool_result")]
        assert "arguments/pin" in MeshError.from_status(error).fields

    async def test_an_agent_that_does_not_remember_has_no_such_tools(self, mesh, dial):
        script = json.dumps({"agents": {"default": [self.call("recall", about="x"), {"text": "Done."}]}})
        client = dial(await mesh.agent(Agent("plain", "Work."), script=script))
        events = await client.steps()
        (error,) = [e.tool_result.error for e in events if e.HasField("tool_result")]
        assert MeshError.from_status(error).reason == "PERMISSION_DENIED"

    def test_their_names_are_the_meshs(self):
        with pytest.raises(SetupError, match=r"memory\.recall"):
            Agent("a", "b", tools=["memory.recall@^1"], remembers=True)


async def test_outside_of_an_agent_s_process_the_tools_are_contracts_alone():
    async with ToolBench(remembering.remember) as bench:
        call = await bench.call({"fact": "The cat is called Tom."})
    assert call.error.reason == "SETUP"
    assert "Agent(remembers=True)" in call.failure
