"""Seals: the data keys of content, as the store holds them, wrapped, each beside what it is for."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from meshwright.core.codec import Seal, SealPlace
from meshwright.core.errors import SealedOtherwiseError
from meshwright.core.store import Store

KEPT, KEPT_S = 4_096, 60.0
"""Opened data keys that a process keeps at hand, and for how long: so long a deleted one may still be used."""
ATTEMPTS = 5
T = TypeVar("T")


class Seals:
    """Reads data keys from an open store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = store.codec
        self._kept: dict[str, tuple[float, Seal]] = {}

    @property
    def is_on(self) -> bool:
        """Whether content is encrypted."""
        return self._codec.is_on

    def fresh(self, place: SealPlace, *, is_mixed: bool = False) -> Seal:
        """Makes a data key that the store does not know yet; see `Codec.fresh`."""
        return self._codec.fresh(place, is_mixed=is_mixed)

    async def at(self, place: SealPlace) -> Seal:
        """Returns a place's data key; a missing one is told by the seal.

        Raises:
            ContentKeyMissingError: Its master key is not here.
            DataLossError: It was changed.
        """
        if not self.is_on:
            return Seal(place)
        kept = self._kept.get(place.key)
        return kept[1] if kept and kept[0] > time.monotonic() else await self.read(place)

    async def read(self, place: SealPlace) -> Seal:
        """Returns a place's data key as the store holds it now; raises as `at` does."""
        (wrapped,) = await self._store.run(("GET", place.key))
        return self.keep(self._codec.open(place, wrapped))

    def keep(self, seal: Seal) -> Seal:
        """Keeps a data key at hand that the store holds; returns it."""
        if seal.wrapped:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[seal.place.key] = (time.monotonic() + KEPT_S, seal)
        return seal

    async def decrypt(self, place: SealPlace, kind: str, content: bytes) -> bytes:
        """Reads content of a place; where its data key was replaced, by the new one. Raises as `Seal.decrypt` does."""
        seal = await self.at(place)
        if self.is_on and not seal.is_of(content):
            seal = await self.read(place)
        return seal.decrypt(kind, content)

    async def adopt(self, place: SealPlace, owner: str) -> Seal:
        """Gives a data key to a place that was made before there were master keys.

        Args:
            place: What it is for; it ends with its owner.
            owner: Key in the store of what has to be there.

        Returns:
            The data key that stands there now; missing where the owner is gone.
        """
        (is_there,) = await self._store.run(("EXISTS", owner))
        if not is_there:
            return Seal(place, is_on=True)
        fresh = self.fresh(place, is_mixed=True)
        await self._store.run(("SET", place.key, fresh.wrapped, "NX"))
        return await self.read(place)

    async def write(self, place: SealPlace, content: Sequence[str], put: Callable[[Seal], Awaitable[T]]) -> T:
        """Writes to a place by a function of the store that refuses a data key that is not the place's.

        Args:
            place: Where.
            content: Keys in the store that hold content of the place, so that older content is known of.
            put: Writes, and hands `Seal.wrapped` to the store; is called again where another process was faster.

        Raises:
            SealedOtherwiseError: Others were faster again and again.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await put(await self._for_writing(place, content))
            except SealedOtherwiseError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _for_writing(self, place: SealPlace, content: Sequence[str]) -> Seal:
        if not self.is_on:
            return Seal(place)
        wrapped, many = await self._store.run(("GET", place.key), ("EXISTS", *content))
        if wrapped:
            return self.keep(self._codec.open(place, wrapped))
        return self.fresh(place, is_mixed=bool(many))
