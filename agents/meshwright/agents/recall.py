"""Long-term memory: what agents were told to remember beyond a session, found again by similarity."""

import asyncio
import heapq
import json
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from meshwright.agents.embedders.embedder import Vector
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.journal import LIBRARY
from meshwright.agents.memory import holder_of
from meshwright.agents.task import TaskName
from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import DataLossError
from meshwright.core.seals import Seals
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.session_service_pb2 import Memory as MemoryRecord
from meshwright.gen.agents.v1.task_pb2 import EmbeddingUsage

MOST_MEMORIES = 5_000
"""Of one agent for one holder; beyond that the oldest go."""
MOST_TEXT_CHARS = 2_000
MOST_HITS = 20
SCALE = 127
"""Numbers of a vector are kept as whole ones up to this: four times less to read, and hardly less exact."""
LEAST_SIMILARITY = 0.15
ERASED_AT_ONCE = 200
PAGE = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Whose memories: a holder's, of one agent."""

    holder: TaskName
    agent_id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a memory comes from; `is_tainted`: content that others wrote had entered the conversation by then."""

    task_id: str
    session_id: str
    is_tainted: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found, and how similar it is: 1 is the same, 0 has nothing in common."""

    memory: MemoryRecord
    similarity: float


class LongTermMemory:
    """Keeps memories in the store, each holder's in a slot of its own.

    Args:
        store: An open store.
        embedder: What texts are found by. What another one has embedded is not found by this one.
    """

    def __init__(self, store: Store, embedder: MeteredEmbedder) -> None:
        self._store = store
        self._seals = Seals(store)
        self._embedder = embedder

    async def remember(self, place: Place, key: str, text: str, origin: Origin, spent: EmbeddingUsage) -> MemoryRecord:
        """Adds a memory; the same key again adds nothing and returns the first.

        Args:
            place: Whose.
            key: Idempotency key of the call.
            text: At most `MOST_TEXT_CHARS` characters.
            origin: Where it comes from.
            spent: Is told what embedding it took.
        """
        vector = await self._embedder.embed(text, spent)
        facts = {"text": text, "task": origin.task_id, "tainted": origin.is_tainted}
        record = json.dumps(facts, ensure_ascii=False).encode()
        slot, name = holder_of(place.holder), self._embedder.name

        async def put(seal: Seal) -> bytes:
            sealed = seal.encrypt(kind_of(place.agent_id, key), record)
            arguments = (place.agent_id, key, name, origin.session_id, MOST_MEMORIES, packed(vector), sealed)
            remembered: bytes = await self._call("remember", slot, *arguments, seal.wrapped)
            return remembered

        older = content_of(place.holder, place.agent_id, origin.session_id)
        kept = await self._seals.write(place_of(place.holder, origin.session_id), [older], put)
        return await _memory(self._seals, place.holder, place.agent_id, key, kept)

    async def recall(self, place: Place, question: str, most: int, spent: EmbeddingUsage) -> list[Hit]:
        """Returns the memories that are most similar to a question, best first.

        Args:
            place: Whose.
            question: What to look for.
            most: How many are returned, no more than `MOST_HITS`.
            spent: Is told what embedding the question took; where there are no memories, nothing.
        """
        slot = holder_of(place.holder)
        key = partition_key(slot, "vectors", f"{place.agent_id}/{self._embedder.name}")
        (vectors,) = await self._store.run(("HGETALL", key))
        if not vectors:
            return []
        asked = await self._embedder.embed(question, spent)
        best = await asyncio.to_thread(nearest, asked, vectors, min(most, MOST_HITS))
        if not best:
            return []
        ids = [memory_id for _, memory_id in best]
        (records,) = await self._store.run(("HMGET", partition_key(slot, "memory", place.agent_id), *ids))
        return [
            Hit(
                await _memory(self._seals, place.holder, place.agent_id, memory_id.decode(), record),
                round(similarity, 4),
            )
            for (similarity, memory_id), record in zip(best, records, strict=True)
            if record is not None
        ]

    async def _call(self, function: str, slot: str, *arguments: str | int | bytes) -> Any:
        return await self._store.call(LIBRARY.function(function), partition_key(slot, "memory", "-"), slot, *arguments)


class Origins:
    """What came from sessions, whoever remembers it and by which embedder."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seals = Seals(store)

    async def memories(self, name: TaskName, session_id: str) -> AsyncIterator[MemoryRecord]:
        """Reads the memories that came from a session."""
        slot = holder_of(name)
        (places,) = await self._store.run(("SMEMBERS", partition_key(slot, "origin", session_id)))
        found = sorted(place.decode().split(" ")[:2] for place in places)
        for start in range(0, len(found), PAGE):
            page = found[start : start + PAGE]
            commands = [("HGET", partition_key(slot, "memory", agent), memory_id) for agent, memory_id in page]
            for (agent, memory_id), record in zip(page, await self._store.run(*commands), strict=True):
                if record is not None:
                    yield await _memory(self._seals, name, agent, memory_id, record)

    async def erase(self, name: TaskName, session_id: str) -> int:
        """Deletes the memories that came from a session; returns how many."""
        slot, gone = holder_of(name), 0
        function, key = LIBRARY.function("unlearn"), partition_key(slot, "origin", session_id)
        while True:
            fresh = int(await self._store.call(function, key, slot, session_id, ERASED_AT_ONCE))
            gone += fresh
            if fresh < ERASED_AT_ONCE:
                return gone


def packed(vector: Vector) -> bytes:
    """Writes a vector of length 1 as one byte a number. Pure."""
    return array("b", (round(SCALE * number) for number in vector)).tobytes()


def nearest(asked: Vector, vectors: dict[bytes, bytes], most: int) -> list[tuple[float, bytes]]:
    """Returns (cosine similarity, id) of the vectors closest to one, best first. Pure."""
    wanted: Sequence[int] = array("b", packed(asked))
    scale = SCALE * SCALE
    scored = (
        (sum(map(mul, wanted, array("b", vector))) / scale, memory_id)
        for memory_id, vector in vectors.items()
        if len(vector) == len(wanted)
    )
    return heapq.nlargest(most, (pair for pair in scored if pair[0] >= LEAST_SIMILARITY))


def place_of(holder: TaskName, session_id: str) -> SealPlace:
    """Names where the data key of memories stands that came from a session; empty: from none."""
    return SealPlace(holder.tenant, partition_key(holder_of(holder), "seal", session_id))


def content_of(holder: TaskName, agent_id: str, session_id: str) -> str:
    """Spells what is there as long as there are such memories."""
    slot = holder_of(holder)
    return partition_key(slot, "origin", session_id) if session_id else partition_key(slot, "memory", agent_id)


def kind_of(agent_id: str, memory_id: str) -> str:
    """Says which memory one is."""
    return f"memory/{agent_id}/{memory_id}"


async def _memory(seals: Seals, holder: TaskName, agent_id: str, memory_id: str, record: bytes) -> MemoryRecord:
    """Reads a memory.

    Raises:
        DataLossError: It was changed, or its data key is gone.
        ContentKeyMissingError: This process does not have the keys.
    """
    _, origin, at_ms, content = record.split(b" ", 3)
    session_id = origin.decode()
    place = place_of(holder, "" if session_id == "-" else session_id)
    try:
        facts = json.loads(await seals.decrypt(place, kind_of(agent_id, memory_id), content))
    except ValueError:
        raise DataLossError(f"memory {memory_id} is not as it was written: delete its session") from None
    memory = MemoryRecord(
        memory_id=memory_id,
        text=facts["text"],
        agent_id=agent_id,
        task_id=facts["task"],
        session_id="" if session_id == "-" else session_id,
        tainted=facts["tainted"],
    )
    memory.create_time.FromMilliseconds(int(at_ms))
    return memory
