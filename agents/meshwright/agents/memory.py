"""Session memory: what tasks leave in their session, by way of the outbox, and what the next one reads of it."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from meshwright.agents import context
from meshwright.agents.context import History
from meshwright.agents.costs import Costs, is_counted
from meshwright.agents.escrow import Escrow
from meshwright.agents.extract import Passage, extract
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.page import Row, page_of
from meshwright.agents.session import KEPT_MS, SUMMARY, Sessions, about_of, output_of, place_of, prompt_of, session_of
from meshwright.agents.shortening import opening, squeezed
from meshwright.agents.task import TaskName
from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import (
    DataLossError,
    InvalidRequestError,
    MemoryFullError,
    SessionNotFoundError,
    TaskNotFoundError,
)
from meshwright.core.ids import digest
from meshwright.core.seals import Seals
from meshwright.core.store import Store, partition_key, segment
from meshwright.gen.agents.v1.session_service_pb2 import Fact, Session, Turn

RECENT, FOLDED_AT_ONCE = 12, 4
"""Latest turns that the summary does not stand for, and how many more there may be before it takes them in."""
LOADED = RECENT + FOLDED_AT_ONCE
MOST_FOLDED = 20
"""Turns that are taken in without a pause, where many have waited."""
SUMMARY_CHARS = 4_000
KEPT_SHARE = 4
"""A summary that has grown too long is brought down to less: one part in so many is free again."""
READ_CHARS = 4_000
"""Of a turn's output that is looked at for the summary."""
LINE_CHARS = 240
MOST_FACTS, MOST_FACT_CHARS, MOST_FACTS_BYTES = 32, 1_000, 4_096
RELAYED = 100
PAGE = 50
Item = tuple[bytes, dict[bytes, bytes]]
"""A turn as the store holds it: its id, and fields by name."""
MOST_SHOWN_BYTES = 2 * 2**20
"""Of turns in one answer; a message of gRPC takes four."""


def holder_of(name: TaskName) -> str:
    """Names the slot of all that a holder has beside single sessions."""
    return segment(name.ref.rpartition("/")[0])


class Memory:
    """Reads and writes sessions: each is a stream of turns with a summary and pinned facts in a slot of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seals = Seals(store)

    async def _text(self, place: SealPlace, kind: str, content: bytes | None) -> str:
        """Reads a text of a session.

        Raises:
            DataLossError: It was changed, or its data key is gone.
            ContentKeyMissingError: This process does not have the keys.
        """
        if not content:
            return ""
        try:
            return (await self._seals.decrypt(place, kind, content)).decode()
        except UnicodeDecodeError:
            raise DataLossError(f"a {kind} of the session is not as it was written: delete the session") from None

    async def _said(self, place: SealPlace, items: Iterable[Item]) -> list[context.Turn]:
        turns = [await self._turn(place, item) for item in items]
        return [context.Turn(turn.prompt, turn.output) for turn in turns]

    async def load(self, name: TaskName, session_id: str) -> History:
        """Returns what a task knows of its session; the same cost however long the session is."""
        if not session_id:
            return History()
        session = session_of(name, session_id)
        items, facts, about = await self._store.run(
            ("XREVRANGE", partition_key(session, "session"), "+", "-", "COUNT", LOADED),
            ("HGETALL", partition_key(session, "session", "facts")),
            ("HMGET", partition_key(session, "session", "about"), "turns", "summary"),
        )
        place = place_of(name, session_id)
        turns = await self._said(place, reversed(items))
        return History(
            facts=tuple(fact.text for fact in await self._facts(place, facts)),
            summary=await self._text(place, SUMMARY, about[1]),
            turns=tuple(turns),
            is_longer=int(about[0] or 0) > len(turns),
        )

    async def settle(self, name: TaskName, session_id: str) -> None:
        """Lists a session among its holder's, and lets its summary take in turns that are not among the latest."""
        session = session_of(name, session_id)
        (about,) = await self._store.run(("HGETALL", partition_key(session, "session", "about")))
        if not about:  # deleted meanwhile
            return
        listed, updated = partition_key(holder_of(name), "sessions"), int(about[b"updated"])
        await self._store.run(
            ("ZADD", listed, "GT", updated, session_id),
            ("ZREMRANGEBYSCORE", listed, "-inf", updated - KEPT_MS),
            ("PEXPIRE", listed, KEPT_MS),
        )
        behind = int(about.get(b"turns", 0)) - int(about.get(b"folded", 0)) - RECENT
        if behind >= FOLDED_AT_ONCE:
            place, through = place_of(name, session_id), about.get(b"through", b"").decode()
            summary = await self._text(place, SUMMARY, about.get(b"summary"))

            async def put(seal: Seal) -> None:
                await self._fold(session, seal, through, summary, behind)

            await self._seals.write(place, [about_of(name, session_id)], put)

    async def _fold(self, session: str, seal: Seal, through: str, summary: str, behind: int) -> None:
        """Takes turns into the summary; where another process was faster, nothing changes."""
        key = partition_key(session, "session")
        while behind > 0:
            many = min(behind, MOST_FOLDED)
            (items,) = await self._store.run(("XRANGE", key, f"({through}" if through else "-", "+", "COUNT", many))
            if not items:
                return
            last, summary = items[-1][0].decode(), folded(summary, await self._said(seal.place, items))
            sealed = seal.encrypt(SUMMARY, summary.encode())
            if not await self._call("fold", session, through, last, len(items), sealed, seal.wrapped):
                return
            through, behind = last, behind - len(items)

    async def about(self, name: TaskName, session_id: str, turns: int = 0) -> Session:
        """Reads a session with its latest turns, at most `MOST_SHOWN_BYTES` of them.

        Raises:
            SessionNotFoundError: This holder has no such session.
        """
        session = session_of(name, session_id)
        about, facts, items = await self._store.run(
            ("HGETALL", partition_key(session, "session", "about")),
            ("HGETALL", partition_key(session, "session", "facts")),
            ("XREVRANGE", partition_key(session, "session"), "+", "-", "COUNT", max(1, turns)),
        )
        if not about:
            raise SessionNotFoundError(f"no session {session_id}: `meshwright session list` shows those that are there")
        found = _session(session_id, about)
        place = place_of(name, session_id)
        found.summary = await self._text(place, SUMMARY, about.get(b"summary"))
        found.facts.extend(await self._facts(place, facts))
        found.turns.extend(reversed(_showable([await self._turn(place, item) for item in items[:turns]])))
        return found

    async def turns(self, name: TaskName, session_id: str) -> AsyncIterator[Turn]:
        """Reads all turns that are kept, oldest first."""
        key, after = partition_key(session_of(name, session_id), "session"), "-"
        place = place_of(name, session_id)
        while True:
            (items,) = await self._store.run(("XRANGE", key, after, "+", "COUNT", PAGE))
            for item in items:
                yield await self._turn(place, item)
            if len(items) < PAGE:
                return
            after = f"({items[-1][0].decode()}"

    async def page(self, holder: TaskName, before: Row | None, many: int) -> list[Row]:
        """Lists (last used ms, session id) of a holder's sessions, the latest first, after a cursor of that form."""
        return await page_of(self._store, partition_key(holder_of(holder), "sessions"), before, many)

    async def abouts(self, holder: TaskName, session_ids: Sequence[str]) -> list[Session]:
        """Reads what sessions are, without facts, summary and turns; those that are gone are taken off the list."""
        keys = [partition_key(session_of(holder, one), "session", "about") for one in session_ids]
        replies = await self._store.run(*(("HGETALL", key) for key in keys)) if keys else []
        found = dict(zip(session_ids, replies, strict=True))
        gone = [one for one, about in found.items() if not about]
        if gone:
            await self.unlist(holder, *gone)
        return [_session(one, about) for one, about in found.items() if about]

    async def unlist(self, holder: TaskName, *session_ids: str) -> None:
        """Takes sessions off their holder's list."""
        await self._store.run(("ZREM", partition_key(holder_of(holder), "sessions"), *session_ids))

    async def pin(self, name: TaskName, session_id: str, text: str, *, task_id: str = "") -> Fact:
        """Pins a fact to a session, once.

        Args:
            name: Any task of the holder.
            session_id: The session; it is made where there is none.
            text: The fact.
            task_id: Task that pins it; empty: a person does.

        Raises:
            InvalidRequestError: It is empty or too long.
            MemoryFullError: The session has as many facts as it may have.
        """
        plain = " ".join(text.split())
        if not 0 < len(plain) <= MOST_FACT_CHARS:
            problem = f"must have 1..{MOST_FACT_CHARS} characters"
            raise InvalidRequestError(f"the fact {problem}", fields={"text": problem})
        session, fact_id = session_of(name, session_id), digest("fact", plain)[:16]
        ((seconds, micros),) = await self._store.run(("TIME",))
        at_ms = int(seconds) * 1000 + int(micros) // 1000
        fresh = json.dumps({"text": plain, "at": at_ms, "task": task_id}, ensure_ascii=False).encode()
        place = place_of(name, session_id)

        async def put(seal: Seal) -> bytes | None:
            fact = seal.encrypt(kind_of_fact(fact_id), fresh)
            pinned: bytes | None = await self._call(
                "pin", session, fact_id, fact, MOST_FACTS, MOST_FACTS_BYTES, KEPT_MS, seal.wrapped
            )
            return pinned

        kept = await self._seals.write(place, [about_of(name, session_id)], put)
        if kept is None:
            most = f"at most {MOST_FACTS} facts and {MOST_FACTS_BYTES} bytes of them"
            raise MemoryFullError(f"session {session_id} has room for {most}: unpin one first")
        await self.settle(name, session_id)
        return await self._fact(place, fact_id, kept)

    async def unpin(self, name: TaskName, session_id: str, fact_id: str) -> None:
        """Removes a pinned fact, if it is there."""
        await self._store.run(("HDEL", partition_key(session_of(name, session_id), "session", "facts"), fact_id))

    async def _facts(self, place: SealPlace, entries: dict[bytes, bytes]) -> list[Fact]:
        facts = [await self._fact(place, fact_id.decode(), entry) for fact_id, entry in entries.items()]
        return sorted(facts, key=lambda fact: (fact.create_time.ToMilliseconds(), fact.fact_id))

    async def _fact(self, place: SealPlace, fact_id: str, entry: bytes) -> Fact:
        try:
            kept = json.loads(await self._text(place, kind_of_fact(fact_id), entry))
        except ValueError:
            raise DataLossError("a fact of the session is not as it was written: unpin it") from None
        fact = Fact(fact_id=fact_id, text=kept["text"], task_id=kept["task"])
        fact.create_time.FromMilliseconds(kept["at"])
        return fact

    async def _turn(self, place: SealPlace, item: Item) -> Turn:
        turn_id, fields = item
        turn = Turn(task_id=fields[b"task"].decode(), agent_id=fields.get(b"agent", b"").decode())
        turn.prompt = await self._text(place, prompt_of(turn.task_id), fields[b"prompt"])
        turn.output = await self._text(place, output_of(turn.task_id), fields[b"output"])
        turn.time.FromMilliseconds(int(turn_id.partition(b"-")[0]))
        return turn

    async def _call(self, function: str, session: str, *arguments: str | int | bytes) -> Any:
        slot = partition_key(session, "session")
        return await self._store.call(LIBRARY.function(function), slot, session, *arguments)


class Outbox:
    """Applies what finished tasks leave behind outside of their partition; every entry may be applied again."""

    def __init__(self, journal: Journal, sessions: Sessions, memory: Memory, *, escrow: Escrow, costs: Costs) -> None:
        self._journal = journal
        self._sessions = sessions
        self._memory = memory
        self._escrow = escrow
        self._costs = costs

    async def relay(self, partition: int) -> int:
        """Applies and removes waiting entries, the oldest first; returns how many."""
        entries = await self._journal.outbox(partition, RELAYED)
        for entry_id, name in entries:
            with contextlib.suppress(TaskNotFoundError):  # it has expired
                await self._apply(name)
            await self._journal.outbox_done(partition, entry_id)
        return len(entries)

    async def free(self, root: TaskName) -> None:
        """Returns to shared budgets at once what an ended tree did not spend; its entry waits, and returns no more."""
        await self._escrow.give_back(await self._journal.record(root))

    async def _apply(self, name: TaskName) -> None:
        """Applies what a task leaves behind; of one that cannot be read, its money all the same."""
        try:
            record = await self._journal.record(name)
        except DataLossError:
            record = await self._journal.outline(name)
        response = await self._journal.response(name)
        if not record.parent_id and is_counted(record.usage):
            await self._costs.count(record, response)
        if not record.parent_id:
            await self._escrow.give_back(record)
        if record.session_id:
            with contextlib.suppress(DataLossError):  # the session cannot be read either
                await self._sessions.leave(name, record.request, response)
                await self._memory.settle(name, record.session_id)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a summary and its place."""

    place: int
    text: str


def folded(summary: str, turns: Sequence[context.Turn]) -> str:
    """Takes turns into a summary: a line each, made of their own sentences; the lines that say least make room. Pure.

    Args:
        summary: What there is.
        turns: Oldest first.

    Returns:
        At most `SUMMARY_CHARS` characters; the same input always gives the same text.
    """
    lines = [line for line in summary.split("\n") if line] + [_line_of(turn) for turn in turns]
    if sum(len(line) + 1 for line in lines) <= SUMMARY_CHARS:
        return "\n".join(lines)
    room = SUMMARY_CHARS - SUMMARY_CHARS // KEPT_SHARE
    numbered = [_Line(place, line) for place, line in enumerate(lines)]
    kept: list[_Line] = []
    for line in [*reversed(numbered[-RECENT:]), *_telling(numbered[:-RECENT])]:
        room -= len(line.text) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(line.text for line in sorted(kept, key=lambda line: line.place))


def _line_of(turn: context.Turn) -> str:
    """Writes a turn by the opening of its prompt and the sentence of its answer that says most about it."""
    answer = squeezed(turn.output[:READ_CHARS])
    best = extract(turn.prompt[:READ_CHARS], [Passage("", answer)], most=1)
    said = opening(best[0].sentence if best else answer, LINE_CHARS)
    return f"- Asked: {opening(squeezed(turn.prompt), LINE_CHARS)} Answered: {said}"


def _telling(lines: Sequence[_Line]) -> list[_Line]:
    """Orders lines by how much they say of what all of them speak of, the most telling first."""
    ranked = extract("", [Passage(str(line.place), line.text.removeprefix("- ")) for line in lines], most=len(lines))
    by_place = {str(line.place): line for line in lines}
    return list(dict.fromkeys(by_place[one.source] for one in ranked))


def _session(session_id: str, about: dict[bytes, bytes]) -> Session:
    session = Session(session_id=session_id, turn_count=int(about.get(b"turns", 0)))
    session.create_time.FromMilliseconds(int(about[b"created"]))
    session.update_time.FromMilliseconds(int(about[b"updated"]))
    return session


def _showable(turns: Iterable[Turn]) -> list[Turn]:
    """Takes turns as long as they fit into one answer."""
    room, shown = MOST_SHOWN_BYTES, list[Turn]()
    for turn in turns:
        room -= turn.ByteSize()
        if room < 0:
            break
        shown.append(turn)
    return shown


def kind_of_fact(fact_id: str) -> str:
    """Says which fact one is."""
    return f"fact/{fact_id}"
