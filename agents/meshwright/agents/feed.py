"""Feeds: how watchers of a task learn of its events, whichever process writes them.

One subscription connection a process serves all watchers. Messages are hints with a payload: a watcher that misses one
sees the hole in the sequence, or the subscription is confirmed anew, or its heartbeat passes, and it reads the journal.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from meshwright.agents.journal import Journal
from meshwright.agents.reader import PAGE, parse_ref
from meshwright.agents.sealing import opened_by
from meshwright.agents.task import Entry, TaskName
from meshwright.core.codec import Seal
from meshwright.core.errors import ContentKeyMissingError, DataLossError, MeshError
from meshwright.core.process import ended
from meshwright.core.recurring import Recurring
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent, StreamGap

log = structlog.get_logger("feed")
QUEUE = 256


class Beat(Enum):
    """A heartbeat is due."""

    DUE = 1


BEAT = Beat.DUE
Item = StepEvent | Beat | None
RECONNECT_S = 0.2
LOOKS = 15
"""How often it is looked, in the time after which a heartbeat is due, for whom one is."""
NEVER_AGAIN = Retry(NoBackoff(), 0, supported_errors=())
"""A connection is read and written by several at once: were each of them to reconnect it, they would collide."""


class Follower:
    """One watcher's bounded queue; None in it says: read the journal, `BEAT`: nothing has come for a while.

    Most watchers wait, and there are thousands: one that does so holds a future, and no coroutine or timer beside it.

    Attributes:
        silent_since: Since when it has waited, on the monotonic clock; who never sets it is sent no `BEAT`.
    """

    __slots__ = ("_waiter", "_waiting", "silent_since")

    def __init__(self) -> None:
        self._waiting: list[Item] = []
        self._waiter: asyncio.Future[None] | None = None
        self.silent_since = math.inf

    def __len__(self) -> int:
        """Counts what waits to be taken."""
        return len(self._waiting)

    def push(self, item: Item) -> None:
        """Adds an event; a watcher that is too slow loses what waits and reads the journal instead."""
        if len(self._waiting) >= QUEUE:
            self._waiting.clear()
            item = None
        self._waiting.append(item)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def arrival(self) -> asyncio.Future[None]:
        """Returns what is done once something waits to be taken."""
        self._waiter = asyncio.get_running_loop().create_future()
        if self._waiting:
            self._waiter.set_result(None)
        return self._waiter

    def take(self) -> Item:
        """Takes what has waited for longest."""
        return self._waiting.pop(0)

    async def next(self, timeout_s: float) -> StepEvent | None:
        """Waits for the next event.

        Raises:
            TimeoutError: Nothing came.
        """
        async with asyncio.timeout(timeout_s):
            await self.arrival()
        item = self.take()
        return item if isinstance(item, StepEvent) else None


@dataclass(slots=True)
class Audience:
    """Those who follow one task, whether what others write to it is heard, and the data key to read that."""

    followers: list[Follower]
    is_heard: bool = False
    seal: Seal | None = None

    def push(self, item: Item) -> None:
        """Hands an event to all of them."""
        for follower in self.followers:
            follower.push(item)


class Feeds:
    """The feeds of all tasks that are watched or run in this process.

    Args:
        journal: What is followed.
        heartbeat_s: How long a watcher may hear nothing.
    """

    def __init__(self, journal: Journal, *, heartbeat_s: float = 15.0) -> None:
        self._journal = journal
        self._heartbeat_s = heartbeat_s
        self._audiences: dict[str, Audience] = {}
        self._listeners: dict[str, Callable[[str], None]] = {}
        self._pubsub: Any = None
        self._is_open = asyncio.Event()
        self._chores: list[asyncio.Task[None]] = []

    async def open(self, listeners: dict[str, Callable[[str], None]]) -> None:
        """Starts to listen.

        Args:
            listeners: By name (an agent, an owner): what to do when a `wake` message for it arrives.
        """
        for name, listener in listeners.items():
            for partition in range(self._journal.store.partitions):
                self._listeners[partition_key(partition, "wake", name)] = listener
        self._chores = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]
        await self._is_open.wait()

    async def close(self) -> None:
        """Stops to listen."""
        await ended(*self._chores)

    async def _beat(self) -> None:
        """Pushes `BEAT` to those who have waited for long: one clock for all, which their events do not touch."""
        while True:
            await asyncio.sleep(self._heartbeat_s / LOOKS)
            latest = time.monotonic() - self._heartbeat_s
            for audience in self._audiences.values():
                for follower in audience.followers:
                    if follower.silent_since <= latest and not len(follower):
                        follower.push(BEAT)

    async def _read(self) -> None:
        failing = Recurring()
        while True:
            try:
                async with self._subscribed() as pubsub:
                    if failing.is_over():
                        log.info("feed_connected")
                    while True:
                        self._take(await pubsub.get_message(timeout=None))
            except Exception as error:  # noqa: BLE001 - whatever the client raises, go on
                if failing.is_news():
                    log.warning("feed_reconnects", error=str(error))
            await asyncio.sleep(RECONNECT_S)

    @contextlib.asynccontextmanager
    async def _subscribed(self) -> AsyncGenerator[Any, None]:
        """Opens a connection that hears everything that is wanted, and ends with its first failure."""
        async with self._journal.store.client.pubsub() as pubsub:
            await pubsub.ssubscribe(*self._listeners)
            connection: Any = pubsub.connection
            retry, connection.retry = connection.retry, NEVER_AGAIN
            try:
                self._pubsub = pubsub
                self._is_open.set()
                if heard := [ref for ref, audience in self._audiences.items() if audience.is_heard]:
                    await pubsub.ssubscribe(*(self._channel(parse_ref(ref)) for ref in heard))
                yield pubsub
            finally:
                self._pubsub = None
                connection.retry = retry

    def _take(self, message: dict[str, Any] | None) -> None:
        kind = message["type"] if message else ""
        if message and kind == "smessage":
            self._dispatch(message["channel"].decode(), message["data"])
        elif message and kind == "ssubscribe":  # from here on nothing is missed; before, something may have been
            self._push(ref_in(message["channel"].decode()), None)

    def _dispatch(self, channel: str, data: bytes) -> None:
        listener = self._listeners.get(channel)
        if listener:
            listener(data.decode())
            return
        ref = ref_in(channel)
        audience = self._audiences.get(ref)
        if audience is None:
            return
        head, _, body = data.partition(b"\n")
        sequence, time_ms, path = head.decode().split(" ")
        if body[:1] == b"e":
            entry = Entry(int(sequence), int(time_ms), path, body[1:])
            audience.push(opened_event(parse_ref(ref), audience.seal, entry))
        else:
            audience.push(None)

    def _push(self, ref: str, event: StepEvent | None) -> None:
        if audience := self._audiences.get(ref):
            audience.push(event)

    def show(self, name: TaskName, events: Iterable[StepEvent]) -> None:
        """Hands events that this process wrote itself to the watchers here, without a round trip."""
        if audience := self._audiences.get(name.ref):
            for event in events:
                audience.push(event)

    def show_passing(self, name: TaskName, frame: StepEvent) -> None:
        """Hands a frame that is not kept to the watchers here, unless they will hear it from the store anyway."""
        audience = self._audiences.get(name.ref)
        if audience and not audience.is_heard:
            audience.push(frame)

    async def give_up(self, name: TaskName) -> None:
        """Lets watchers here follow a task that this process does not write any more."""
        await self.attend(name)
        self._push(name.ref, None)

    async def attend(self, name: TaskName) -> None:
        """Lets watchers here hear what others, such as children, write to a task of this process."""
        audience = self._audiences.get(name.ref)
        if audience and not audience.is_heard:
            audience.is_heard = True
            await self._unseal(name, audience)
            await self._send("ssubscribe", self._channel(name))

    async def _unseal(self, name: TaskName, audience: Audience) -> None:
        """Makes the data key known to an audience; what is wrong with it is told by the journal."""
        with contextlib.suppress(MeshError):
            audience.seal = await self._journal.sealing.known(name)

    def _channel(self, name: TaskName) -> str:
        """Spells where processes tell each other of a task's events."""
        return partition_key(name.partition(self._journal.store.partitions), "tail", name.ref)

    async def _send(self, command: str, channel: str) -> None:
        """Writes to the connection, if it stands; the next one is told anyway what is wanted then."""
        if self._pubsub and self._pubsub.connection.is_connected:
            with contextlib.suppress(RedisError, OSError):
                await getattr(self._pubsub, command)(channel)

    def join(self, name: TaskName) -> Follower:
        """Joins the feed of a task that this process writes, and will call `attend` for should that change."""
        follower = Follower()
        if audience := self._audiences.get(name.ref):
            audience.followers.append(follower)
        else:
            self._audiences[name.ref] = Audience([follower])
        return follower

    async def leave(self, name: TaskName, follower: Follower) -> None:
        """Leaves a feed."""
        audience = self._audiences[name.ref]
        audience.followers.remove(follower)
        if not audience.followers:
            del self._audiences[name.ref]
            if audience.is_heard:
                await self._send("sunsubscribe", self._channel(name))

    @contextlib.asynccontextmanager
    async def joined(self, name: TaskName) -> AsyncIterator[Follower]:
        """Joins a feed as `join` does, for a while."""
        follower = self.join(name)
        try:
            yield follower
        finally:
            await self.leave(name, follower)

    @contextlib.asynccontextmanager
    async def following(self, name: TaskName) -> AsyncIterator[Follower]:
        """Joins a feed for a while, whoever writes the task."""
        async with self.joined(name) as follower:
            await self.attend(name)
            yield follower

    async def follow(
        self, name: TaskName, after: int, *, joined: Follower | None = None
    ) -> AsyncGenerator[StepEvent | None, None]:
        """Yields a task's events after a sequence, without gap or repetition, and ends after its result.

        Args:
            name: The task.
            after: The last sequence that was seen.
            joined: A follower that has been there since before the task's first event.

        Yields:
            Events; passing frames with sequence 0; None when nothing came for long.
        """
        follower = joined or await self._heard(name)  # no context managers: thousands of watches wait in here
        cursor, is_behind = after, joined is None or after > 0
        try:
            while True:
                events: Sequence[StepEvent] = ()
                if is_behind:
                    events = await self._missed(name, cursor)
                    if not events and await self._is_over(name, cursor):
                        return
                    is_behind = len(events) >= PAGE
                else:
                    follower.silent_since = time.monotonic()
                    await follower.arrival()
                    fresh = follower.take()
                    if isinstance(fresh, StepEvent):
                        if fresh.HasField("result") and fresh.sequence <= cursor:
                            return  # the watcher asked for what comes after the end
                        is_behind = fresh.sequence > cursor + 1
                        events = (fresh,) if fresh.sequence in (0, cursor + 1) else ()
                    else:
                        is_behind = True
                        if fresh is BEAT:
                            yield None
                for event in events:
                    cursor = max(cursor, event.sequence)
                    yield event
                    if event.HasField("result"):
                        return
        finally:
            follower.silent_since = math.inf
            if joined is None:
                await self.leave(name, follower)

    async def _heard(self, name: TaskName) -> Follower:
        follower = self.join(name)
        try:
            await self.attend(name)
        except BaseException:
            await self.leave(name, follower)
            raise
        return follower

    async def _missed(self, name: TaskName, after: int) -> list[StepEvent]:
        """Reads a page of what the journal holds after a sequence; a gap frame stands for what is gone."""
        events = []
        audience = self._audiences.get(name.ref)
        if audience and audience.is_heard and (audience.seal is None or audience.seal.is_missing):
            await self._unseal(name, audience)
        for entry in await self._journal.read(name, after):
            if entry.sequence > after + 1:
                events.append(await self._gap(name, after + 1, entry.sequence - 1))
            after = entry.sequence
            events.append(entry.event(name.task_id))
        return events

    async def _gap(self, name: TaskName, first: int, last: int) -> StepEvent:
        """Stands in for a part of the journal that is gone."""
        response = await self._journal.response(name)
        gap = StepEvent(task_id=name.task_id, gap=StreamGap(from_sequence=first, to_sequence=last, snapshot=response))
        gap.time.FromMilliseconds(int(time.time() * 1000))
        return gap

    async def _is_over(self, name: TaskName, cursor: int) -> bool:
        record = await self._journal.record(name)
        return record.is_terminal and cursor >= record.sequence


def opened_event(name: TaskName, seal: Seal | None, entry: Entry) -> StepEvent | None:
    """Reads an event that was heard; None: the journal has the same, and says what is wrong."""
    try:
        return opened_by(seal, name, entry).event(name.task_id) if seal else None
    except (DataLossError, ContentKeyMissingError):
        return None


def ref_in(channel: str) -> str:
    """Returns the task that a channel tells of; empty: none."""
    return channel.partition(":tail:")[2]
