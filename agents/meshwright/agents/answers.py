"""Answers from before, as the store keeps them: each by an id that holds all it depends on, each for a time.

All of a tenant's lie in one slot, so that they are counted exactly. They are found by their id, or by a vector among
those of the same scope.
"""

import asyncio
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from operator import mul

import structlog

from meshwright.agents.journal import LIBRARY
from meshwright.agents.question import Question
from meshwright.agents.recall import nearest
from meshwright.agents.task import TaskName
from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import ContentKeyMissingError, DataLossError
from meshwright.core.seals import Seals
from meshwright.core.store import Store, partition_key, segment

log = structlog.get_logger("answers")

MOST_ANSWERS, MOST_BYTES = 5_000, 32 * 2**20
"""Of one tenant; beyond that those go that would end first."""
MOST_ALIKE = 1_000
"""Of one scope: they are compared one by one."""
LOOKED_AT = 5
"""The nearest ones, which are compared exactly."""
ERASED_AT_ONCE = 200
NOWHERE = "-"
"""In place of a session: the answer came from none."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer from before.

    Attributes:
        text: What was said.
        question: What was asked, where similar questions count.
        provider: The kind of provider that answered.
        model: The model's name there.
        tokens: Read and written on the way to it.
        micros: What it cost, in millionths of a US dollar.
        left_ms: How long it will still be kept.
        similarity: Of the two questions, as a cosine; 1: they are the same.
    """

    text: str
    question: str
    provider: str
    model: str
    tokens: int
    micros: int
    left_ms: int = 0
    similarity: float = 1.0


class Answers:
    """Keeps answers.

    Args:
        store: An open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seals = Seals(store)

    async def find(self, question: Question) -> Kept | None:
        """Returns the answer to the same question."""
        found = await self._read(question.name, [question.answer_id])
        return found[0]

    async def alike(self, question: Question) -> list[Kept]:
        """Returns answers to the questions of the same scope that are most similar, best first."""
        slot = slot_of(question.name)
        (vectors,) = await self._store.run(("HGETALL", partition_key(slot, "vectors", question.scope)))
        if not vectors:
            return []
        best = await asyncio.to_thread(closest, question.vector, vectors)
        found = await self._read(question.name, [answer_id for _, answer_id in best])
        return [
            Kept(one.text, one.question, one.provider, one.model, one.tokens, one.micros, one.left_ms, similarity)
            for one, (similarity, _) in zip(found, best, strict=True)
            if one
        ]

    async def _read(self, name: TaskName, answer_ids: Sequence[str]) -> list[Kept | None]:
        slot = slot_of(name)
        keys = [partition_key(slot, "answer", answer_id) for answer_id in answer_ids]
        commands: list[tuple[str, ...]] = [(command, key) for key in keys for command in ("GET", "PTTL")]
        if not commands:
            return []
        *replies, abouts = await self._store.run(
            *commands, ("HMGET", partition_key(slot, "answers", "about"), *answer_ids)
        )
        kept = zip(answer_ids, replies[::2], replies[1::2], abouts, strict=True)
        return [await self._opened(name, one, record, about, left) for one, record, left, about in kept]

    async def _opened(
        self, name: TaskName, answer_id: str, record: bytes | None, about: bytes | None, left_ms: int
    ) -> Kept | None:
        """Reads an answer; one that cannot be read is none: the model is asked again."""
        if not record:
            return None
        origin = about.rpartition(b" ")[2].decode() if about else NOWHERE
        try:
            content = await self._seals.decrypt(place_of(name, origin), kind_of(answer_id), record)
            return Kept(**json.loads(content), left_ms=left_ms)
        except (DataLossError, ContentKeyMissingError, ValueError, TypeError) as error:
            log.warning("answer_unreadable", answer_id=answer_id, error=str(error))
            return None

    async def keep(self, question: Question, answer: Kept, session_id: str, life_ms: int) -> None:
        """Keeps an answer, in the place of an older one to the same question.

        Args:
            question: What it answers.
            answer: The answer.
            session_id: Session that it came from and goes with; empty: none.
            life_ms: How long it is kept.

        Raises:
            StoreFullError: The store takes nothing that it need not take.
        """
        slot = slot_of(question.name)
        facts = {name: getattr(answer, name) for name in ("text", "question", "provider", "model", "tokens", "micros")}
        record = json.dumps(facts, ensure_ascii=False).encode()
        origin = question.name.sibling(session_id).ref if session_id else NOWHERE

        async def put(seal: Seal) -> None:
            await self._store.call(
                LIBRARY.function("retain"),
                partition_key(slot, "answers"),
                slot,
                question.answer_id,
                question.scope,
                origin,
                life_ms,
                MOST_ANSWERS,
                MOST_BYTES,
                MOST_ALIKE,
                question.vector,
                seal.encrypt(kind_of(question.answer_id), record),
                seal.wrapped,
            )

        await self._seals.write(place_of(question.name, origin), [partition_key(slot, "answers")], put)

    async def erase(self, name: TaskName, session_id: str) -> int:
        """Deletes the answers that came from a session, whoever may be given them; returns how many."""
        slot, gone = slot_of(name), 0
        function, key = LIBRARY.function("disown"), partition_key(slot, "answers")
        while True:
            fresh = int(await self._store.call(function, key, slot, name.sibling(session_id).ref, ERASED_AT_ONCE))
            gone += fresh
            if fresh < ERASED_AT_ONCE:
                return gone


def place_of(name: TaskName, origin: str) -> SealPlace:
    """Names where the data key of answers stands that came from a session."""
    return SealPlace(name.tenant, partition_key(slot_of(name), "seal", origin))


def kind_of(answer_id: str) -> str:
    """Says which answer one is."""
    return f"answer/{answer_id}"


def slot_of(name: TaskName) -> str:
    """Names the slot of a tenant's answers."""
    return segment(f"answers/{segment(name.tenant)}")


def closest(asked: bytes, vectors: dict[bytes, bytes]) -> list[tuple[float, str]]:
    """Returns (cosine similarity, id) of the vectors closest to one, best first. Pure."""
    unpacked = array("b", asked)
    best = nearest([number / 127 for number in unpacked], vectors, LOOKED_AT)
    exact = [(cosine(unpacked, array("b", vectors[one])), one.decode()) for _, one in best]
    return sorted(exact, reverse=True)


def cosine(one: Sequence[int], other: Sequence[int]) -> float:
    """Returns the cosine of two vectors, which rounding has left a little longer or shorter than 1."""
    lengths = sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / lengths if lengths else 0.0
