"""Deliveries: the events that endpoints are still to be told, each endpoint's in a queue of its own in the store."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meshwright.agents.journal import LIBRARY
from meshwright.agents.reader import parse_ref
from meshwright.agents.task import TaskName
from meshwright.core.facts import shortened
from meshwright.core.ids import Form, digest
from meshwright.core.store import Store, partition_key, segment

EventKind = Literal["input_requested", "task_ended"]
ENDPOINT_NAME = Form(re.compile(r"[a-z][a-z0-9_-]{0,62}"), "1 to 63 small letters, digits, _ or -, a letter first")
PARTS = 6
MOST_WHY = 200
"""Bytes of what is kept of a failure."""


@dataclass(frozen=True, slots=True)
class Hook:
    """What an endpoint wants to be told.

    Attributes:
        queue: Names its queue.
        events: Which.
        tenants: Of whose tasks; empty: everyone's.
        name: How the endpoint is called.
        place: Its host:port.
    """

    queue: str
    events: Sequence[EventKind]
    tenants: Sequence[str] = ()
    name: str = "-"
    place: str = "-"

    def __str__(self) -> str:
        return f"{self.queue} {','.join(self.events)} {','.join(map(segment, self.tenants)) or '*'}"

    @property
    def described(self) -> str:
        """The same with what people read."""
        return f"{self} {self.name} {self.place}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that was taken from a queue.

    Attributes:
        partition: Where it lies.
        entry: As it lies there.
        attempt: Which this is, from 1.
        kind: What has happened.
        name: The root task.
        origin: The task that asks, with `input_requested`.
        input_id: What it asks.
        sequence: Of its journal when it asked.
        time_ms: When it happened, store time.
        now_ms: Store time when it was taken.
    """

    partition: int
    entry: str
    attempt: int
    kind: str
    name: TaskName
    origin: TaskName
    input_id: str
    sequence: int
    time_ms: int
    now_ms: int

    @classmethod
    def parse(cls, partition: int, entry: str, attempt: int, now_ms: int) -> "Delivery":
        """Reads what the store's functions have written."""
        kind, ref, origin, input_id, sequence, time_ms = entry.split(" ", PARTS - 1)
        name = parse_ref(ref)
        asking = name if origin == "-" else parse_ref(origin)
        return cls(partition, entry, attempt, kind, name, asking, input_id, int(sequence), int(time_ms), now_ms)

    @property
    def event_id(self) -> str:
        """Names the event; the same at every attempt, and for every endpoint."""
        return "msg_" + digest("webhook", self.kind, self.name.ref, self.input_id)[:32]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a queue gave.

    Attributes:
        waiting: Events in the queue, those that were taken included.
        dropped: Events that found it full since it was asked last.
        deliveries: What was taken.
    """

    waiting: int
    dropped: int
    deliveries: list[Delivery]


class Deliveries:
    """The queues of one agent's endpoints."""

    def __init__(self, store: Store, agent_id: str) -> None:
        self._store = store
        self._agent_id = agent_id

    @property
    def partitions(self) -> range:
        """Where queues lie."""
        return range(self._store.partitions)

    async def hook(self, hooks: Sequence[Hook]) -> int:
        """Sets what is queued from now on; returns how many events were in queues that are not wanted any more."""
        texts = "\n".join(map(str, hooks)), "\n".join(hook.described for hook in hooks)
        return sum([int(await self._call("hook", partition, self._agent_id, *texts)) for partition in self.partitions])

    async def unhook(self, queue: str) -> int:
        """Takes an endpoint away for good; returns how many events were left."""
        return sum([int(await self._call("unhook", partition, self._agent_id, queue)) for partition in self.partitions])

    async def take(self, partition: int, queue: str, *, lease_ms: int, most: int) -> Taken:
        """Takes events whose time has come; those that are not settled within the lease come again."""
        now, waiting, dropped, *pairs = await self._call("collect", partition, queue, lease_ms, most)
        found = [
            Delivery.parse(partition, entry.decode(), attempt, now)
            for entry, attempt in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return Taken(waiting, dropped, found)

    async def done(self, queue: str, delivery: Delivery) -> None:
        """Takes an event that was taken by its endpoint out of its queue."""
        await self._settle(queue, delivery, -1, "delivered")

    async def give_up(self, queue: str, delivery: Delivery, why: str) -> None:
        """Takes an event that nobody took out of its queue; why is for people."""
        await self._settle(queue, delivery, -1, "givenup", why)

    async def drop(self, queue: str, delivery: Delivery) -> None:
        """Takes an event out of its queue of which there is nothing to tell any more."""
        await self._settle(queue, delivery, -1)

    async def again(self, queue: str, delivery: Delivery, pause_s: float, why: str) -> None:
        """Has an event tried again after a pause; why is for people."""
        await self._settle(queue, delivery, int(pause_s * 1000), "failed", why)

    async def _settle(self, queue: str, delivery: Delivery, pause_ms: int, state: str = "", why: str = "") -> None:
        line = shortened(" ".join(why.split()), MOST_WHY)
        facts = queue, delivery.entry, delivery.attempt, pause_ms, delivery.event_id, state, line
        await self._call("settle", delivery.partition, *facts)

    async def _call(self, function: str, partition: int, *arguments: str | int) -> Any:
        slot = partition_key(partition, "hooks")
        return await self._store.call(LIBRARY.function(function), slot, partition, *arguments)
