"""Data keys: all that the store holds, counted by the master key that each is wrapped with, and wrapped anew."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from meshwright.agents.journal import LIBRARY
from meshwright.core.codec import Codec, ContentKeys, SealPlace, wrapping_id
from meshwright.core.errors import ContentKeyMissingError, DataLossError
from meshwright.core.store import MESH, Store, key_parts, key_patterns, partition_key

BATCH = 500
"""Keys that are looked at in one round trip."""
MOST_PASSES = 5
"""Over all data keys, as long as each finds some that were wrapped with an old key meanwhile."""
MOST_NAMED = 5
ANSWERS = "answers"
"""What the slot of a tenant's answers begins with; see `answers.slot_of`."""


@dataclass(slots=True)
class Census:
    """What a pass over all data keys found.

    Attributes:
        held: Data keys by the id of their master key.
        unreadable: How many cannot be opened: changed, of no known form, or wrapped with another key of that id.
        named: Where the first of these stand, `MOST_NAMED` at most.
        stale: How many an old master key held when they were looked at, and could be wrapped anew.
        rewrapped: How many of these were; the others changed in that moment.
    """

    held: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    named: list[str] = field(default_factory=list)
    stale: int = 0
    rewrapped: int = 0

    @property
    def seen(self) -> int:
        """How many were looked at."""
        return self.held.total() + self.unreadable

    def cannot_open(self, key: str) -> None:
        """Counts one that cannot be opened."""
        self.unreadable += 1
        if len(self.named) < MOST_NAMED:
            self.named.append(key)

    def is_of(self, key_id: str) -> bool:
        """Whether it found all of them wrapped with one master key."""
        return not self.unreadable and not self.stale and set(+self.held) <= {key_id}


class DataKeys:
    """Walks over the data keys of a store, beside processes that use them.

    A data key is replaced only where it still stands as it was read; one that was deleted stays deleted. Its own bytes
    stay, so whoever has it open goes on with it.

    Args:
        store: An open store, as an admin: nobody else may list keys. To wrap anew it holds `journal.LIBRARY`.
        keys: Master keys, the first is for writing.
    """

    def __init__(self, store: Store, keys: ContentKeys) -> None:
        self._store = store
        self._keys = keys
        self._codec = Codec(keys)

    async def count(self) -> AsyncIterator[Census]:
        """Counts all data keys; yields the same census after each batch. Changes nothing."""
        census = Census()
        yield census
        async for found in self._batches():
            for key, wrapped in found.items():
                self._tally(census, key, wrapped)
            yield census

    async def rewrap(self) -> AsyncIterator[Census]:
        """Wraps data keys with the first master key, in passes over all until one finds none to be wrapped.

        Yields:
            The census of the pass that is under way, after each batch; the last is what holds at the end.
        """
        for _ in range(MOST_PASSES):
            census = Census()
            yield census
            async for found in self._batches():
                await self._rewrap(found, census)
                yield census
            if not census.stale:
                await self._forget(census)
                return

    async def _batches(self) -> AsyncIterator[dict[str, bytes]]:
        """Yields wrapped data keys by their places: all that stand there from the first batch to the last."""
        cursor = 0
        pattern = key_patterns("*", "seal")[0] + "*"
        while True:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH, "TYPE", "string")
            ((position, listed),) = await self._store.run(scan)
            names = dict.fromkeys(key.decode(errors="replace") for key in listed)
            values = await self._store.run(*(("GET", name) for name in names))
            found = {name: value for name, value in zip(names, values, strict=True) if value and tenants_of(name)}
            if found:
                yield found
            cursor = int(position)
            if not cursor:
                return

    async def _rewrap(self, found: dict[str, bytes], census: Census) -> None:
        """Wraps a batch anew."""
        changed: list[tuple[str, bytes, bytes]] = []
        for key, wrapped in found.items():
            fresh = self._rewrapped(key, wrapped)
            if fresh is None:
                census.cannot_open(key)
            elif fresh == wrapped:
                self._tally(census, key, wrapped)
            else:
                changed.append((key, wrapped, fresh))
        function = LIBRARY.function("rewrap")
        done = await self._store.run(*(("FCALL", function, 1, *change) for change in changed))
        census.stale += len(changed)
        census.rewrapped += sum(done)
        census.held[self._keys.first] += sum(done)

    def _rewrapped(self, key: str, wrapped: bytes) -> bytes | None:
        """Wraps a data key anew; one whose master key is not here stays as it is; None: it cannot be opened."""
        for tenant in tenants_of(key):
            try:
                return self._codec.rewrapped(SealPlace(tenant, key), wrapped)
            except ContentKeyMissingError:
                return wrapped
            except DataLossError:
                continue
        return None

    def _tally(self, census: Census, key: str, wrapped: bytes) -> None:
        """Counts a data key under its master key."""
        try:
            census.held[wrapping_id(SealPlace("", key), wrapped)] += 1
        except DataLossError:
            census.cannot_open(key)

    async def _forget(self, census: Census) -> None:
        """Takes the traces of master keys that hold nothing any more out of the store."""
        if census.unreadable:
            return
        noun = partition_key(MESH, "seal")
        (known,) = await self._store.run(("HKEYS", noun))
        gone = [key_id for key_id in known if not census.held[key_id.decode()] and key_id.decode() != self._keys.first]
        if gone:
            await self._store.run(("HDEL", noun, *gone))


def tenants_of(key: str) -> list[str]:
    """Lists whose a data key may be, by where it stands: a tenant may bear the name of a slot. Pure.

    Task trees stand in numbered slots under `tenant/principal/task`; sessions, memories and answers in slots that are
    called `tenant/principal/session`, `tenant/principal` and `answers/tenant`.
    """
    slot, noun, name = key_parts(key) or ("", "", "")
    if noun != "seal":
        return []
    parts = (name if slot.isdecimal() else unquote(slot)).split("/")
    owners = [parts[1], parts[0]] if parts[0] == ANSWERS and len(parts) == 2 else parts[:1]  # noqa: PLR2004 - two parts
    return [unquote(owner) for owner in owners]
