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

from meshwright.agents.journal import LIBRARY
from meshwright.agents.question import Question
from meshwright.agents.recall import nearest
from meshwright.agents.task import TaskName
from meshwright.core.store import Store, partition_key, segment

MOST_ANSWERS, MOST_BYTES = 5_000, 32 * 2**20
"""Of one tenant; beyond that those go that would end first."""
MOST_ALIKE = 1_000
"""Of one scope: they are compared one by one."""
LOOKED_AT = 5
"""The nearest ones, which are compared exactly."""
ERASED_AT_ONCE = 200


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
        commands = [(command, key) for key in keys for command in ("GET", "PTTL")]
        replies = await self._store.run(*commands) if commands else []
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [Kept(**json.loads(record), left_ms=left) if record else None for record, left in pairs]

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
        await self._store.call(
            LIBRARY.function("retain"),
            partition_key(slot, "answers"),
            slot,
            question.answer_id,
            question.scope,
            question.name.sibling(session_id).ref if session_id else "-",
            life_ms,
            MOST_ANSWERS,
            MOST_BYTES,
            MOST_ALIKE,
            question.vector,
            json.dumps(facts, ensure_ascii=False).encode(),
        )

    async def erase(self, name: TaskName, session_id: str) -> int:
        """Deletes the answers that came from a session, whoever may be given them; returns how many."""
        slot, gone = slot_of(name), 0
        function, key = LIBRARY.function("disown"), partition_key(slot, "answers")
        while True:
            fresh = int(await self._store.call(function, key, slot, name.sibling(session_id).ref, ERASED_AT_ONCE))
            gone += fresh
            if fresh < ERASED_AT_ONCE:
                return gone


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
