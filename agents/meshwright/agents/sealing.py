"""Sealing: what tasks hold is encrypted on its way into the store, all of a tree with one data key.

A descendant's event stands in the journals of all above it as it was written once, so the whole tree reads it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from meshwright.agents.task import Entry, TaskName
from meshwright.core.codec import MARK, Seal, SealPlace, lost
from meshwright.core.errors import TaskCancelledError
from meshwright.core.ids import root_of
from meshwright.core.seals import Seals
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent

REQUEST, CANCEL = "request", "cancel"
KEPT_PLACES = 4_096
OF_STORE = b"the parent task ended"
"""Why a task is cancelled whose parent has ended: the store says so itself, in plain words."""


class Sealing:
    """Encrypts and decrypts what belongs to tasks.

    Args:
        store: An open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seals = Seals(store)

    def place(self, name: TaskName) -> SealPlace:
        """Names where the data key of a task's tree stands."""
        return place_of(name, self._store.partitions)

    def fresh(self, name: TaskName) -> Seal:
        """Makes the data key of a tree that is about to be accepted."""
        return self._seals.fresh(self.place(name)) if self._seals.is_on else unsealed(name.tenant)

    def keep(self, seal: Seal) -> None:
        """Keeps a data key at hand that was accepted with its tree."""
        self._seals.keep(seal)

    async def of(self, name: TaskName) -> Seal:
        """Returns the data key that a task's content is written with.

        Raises:
            TaskCancelledError: Its root is gone.
            DataLossError: The data key was changed.
            ContentKeyMissingError: Its master key is not here.
        """
        if not self._seals.is_on:
            return unsealed(name.tenant)
        seal = await self._seals.at(self.place(name))
        if seal.is_missing:  # accepted before there were keys
            root = name.sibling(root_of(name.task_id))
            owner = partition_key(root.partition(self._store.partitions), "task", root.ref)
            seal = await self._seals.adopt(seal.place, owner)
        if seal.is_missing:
            raise TaskCancelledError("the task that all of this belongs to is gone: nothing is written for it any more")
        return seal

    async def events(self, name: TaskName, events: Sequence[StepEvent], *, is_plain: bool = False) -> list[bytes]:
        """Writes events as the store holds them; `is_plain`: not encrypted. Raises as `of` does."""
        return sealed(Seal(self.place(name)) if is_plain else await self.of(name), name, events)

    async def decision(self, shown: TaskName, input_id: str, event: StepEvent) -> bytes:
        """Writes a decision on a question that a task shows, as an event of the task that asks. Raises as `of` does."""
        key = partition_key(shown.partition(self._store.partitions), "inputs", shown.ref)
        (entry,) = await self._store.run(("HGET", key, input_id)) if self._seals.is_on else (b"",)
        asker = shown.sibling(entry.partition(b" ")[0].decode()) if entry else shown
        return (await self.events(asker, [event]))[0]

    async def frame(self, name: TaskName, frame: StepEvent) -> bytes:
        """Writes a frame that is not kept. Raises as `of` does."""
        return (await self.of(name)).encrypt(f"frame/{name.task_id}", frame.SerializeToString())

    async def reason(self, name: TaskName, reason: str) -> bytes:
        """Writes why a task and its descendants are cancelled. Raises as `of` does."""
        return (await self.of(name)).encrypt(CANCEL, reason.encode())

    async def questions(self, name: TaskName, events: Sequence[StepEvent]) -> list[str | int | bytes]:
        """Writes the questions among events: id, digest, when it lapses, the question. Raises as `of` does."""
        spelled: list[str | int | bytes] = []
        for event in events:
            if event.HasField("input_requested"):
                pending = event.input_requested
                lapses = pending.expire_time.ToMilliseconds()
                kind = kind_of_input(name.task_id, pending.input_id)
                question = (await self.of(name)).encrypt(kind, pending.SerializeToString())
                spelled += [pending.input_id, pending.intent_digest, lapses, question]
        return spelled

    async def opened(self, name: TaskName, entry: Entry) -> Entry:
        """Reads what an entry of a task's journal, or of its feed, holds.

        Raises:
            DataLossError: It was changed, moved, or its data key is gone.
            ContentKeyMissingError: This process does not have the keys.
        """
        payload = await self._decrypt(name, kind_of_entry(name, entry), entry.payload)
        return replace(entry, payload=payload)

    async def known(self, name: TaskName) -> Seal:
        """Returns the data key of a task's tree as it is; it may be missing. Raises as `opened` does."""
        return await self._seals.at(self.place(name))

    async def _decrypt(self, name: TaskName, kind: str, content: bytes) -> bytes:
        if not self._seals.is_on and not content.startswith(MARK):
            return content
        return await self._seals.decrypt(self.place(name), kind, content)

    async def opened_fields(self, name: TaskName, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Reads what of a task's record is encrypted. Raises as `opened` does."""
        if b"request" not in fields:
            raise lost(f"the record of task {name.task_id} holds no request any more")
        found = fields | {b"request": await self._decrypt(name, request_of(name), fields[b"request"])}
        if b"cancel" in fields:
            found[b"cancel"] = await self.opened_reason(name, fields[b"cancel"])
        return found

    async def opened_reason(self, name: TaskName, reason: bytes) -> bytes:
        """Reads why a task is cancelled. Raises as `opened` does."""
        if reason in (b"", OF_STORE):
            return reason
        return await self._decrypt(name, CANCEL, reason)

    async def opened_input(self, name: TaskName, input_id: str, origin: str, question: bytes) -> bytes:
        """Reads a question that a task shows. Raises as `opened` does."""
        return await self._decrypt(name, kind_of_input(origin, input_id), question)


@lru_cache(KEPT_PLACES)
def place_of(name: TaskName, partitions: int) -> SealPlace:
    """Names where the data key of a task's tree stands."""
    root = name.sibling(root_of(name.task_id))
    return SealPlace(name.tenant, partition_key(root.partition(partitions), "seal", root.ref))


@lru_cache(KEPT_PLACES)
def unsealed(tenant: str) -> Seal:
    """Stands for the data keys of a tenant's tasks where nothing is encrypted."""
    return Seal(SealPlace(tenant, ""))


def sealed(seal: Seal, name: TaskName, events: Sequence[StepEvent]) -> list[bytes]:
    """Writes events of a task as the store holds them."""
    return [seal.encrypt(f"event/{name.task_id}", event.SerializeToString()) for event in events]


def opened_by(seal: Seal, name: TaskName, entry: Entry) -> Entry:
    """Reads an entry with the data key at hand. Raises as `Seal.decrypt` does."""
    return replace(entry, payload=seal.decrypt(kind_of_entry(name, entry), entry.payload))


def request_of(name: TaskName) -> str:
    """Says of which task a request is."""
    return f"{REQUEST}/{name.task_id}"


def kind_of_input(origin: str, input_id: str) -> str:
    """Says which question of which task one is."""
    return f"input/{origin}/{input_id}"


def kind_of_entry(name: TaskName, entry: Entry) -> str:
    """Says of which task an event is: the innermost of its path."""
    origin = entry.path.rpartition(",")[2].partition(":")[0] or name.task_id
    return f"{'event' if entry.sequence else 'frame'}/{origin}"
