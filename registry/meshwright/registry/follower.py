"""A follower: one look at the store for all watches of a process, however many there are."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from meshwright.core.errors import AbortedError, MeshError

T = TypeVar("T")
POLL_S = 0.05
"""How often it looks: the delay after which a watch hears of a change."""


class Follower(Generic[T]):
    """Follows a numbered list of changes for a process's watches.

    Args:
        what: What changes, for errors.
        revision: Reads the number of the newest change.
        changes: Reads changes after a revision with their numbers, oldest first, as many as it likes. Watches that
            stand at the same place share what it returns.
    """

    def __init__(
        self,
        what: str,
        revision: Callable[[], Awaitable[int]],
        changes: Callable[[int], Awaitable[list[tuple[int, T]]]],
    ) -> None:
        self._what = what
        self._read_revision = revision
        self._read_changes = changes
        self._revision = 0
        self._starts = 0
        self._moved = asyncio.Condition()
        self._reading = asyncio.Lock()
        self._place = (0, 0, 0)
        self._batch: list[tuple[int, T]] = []

    @property
    def start(self) -> int:
        """Names what is followed now; a watch that began with another one has missed something."""
        return self._starts

    async def follow(self) -> None:
        """Looks for changes, for as long as the process runs."""
        while True:
            with contextlib.suppress(MeshError):
                revision = await self._read_revision()
                if revision != self._revision:
                    async with self._moved:
                        self._starts += revision < self._revision  # another store, or an emptied one
                        self._revision = revision
                        self._moved.notify_all()
            await asyncio.sleep(POLL_S)

    async def end_watches(self) -> None:
        """Ends all watches, so that a server that stops need not wait for them; watchers come back by themselves."""
        async with self._moved:
            self._starts += 1
            self._moved.notify_all()

    async def after(self, revision: int, start: int) -> list[tuple[int, T]]:
        """Waits for changes after a revision, and returns them.

        Args:
            revision: The last one seen.
            start: As it was when the watch began.

        Raises:
            AbortedError: What came after it is not known any more: watch anew.
        """
        async with self._moved:
            await self._moved.wait_for(lambda: self._revision > revision or self._starts != start)
        if self._starts == start:
            changes = await self._shared(revision)
            if changes and changes[0][0] == revision + 1:
                return changes
        raise AbortedError(f"changes were missed: list the {self._what} and watch from now on")

    async def _shared(self, revision: int) -> list[tuple[int, T]]:
        async with self._reading:
            place = (self._starts, self._revision, revision)
            if place != self._place:
                self._batch = await self._read_changes(revision)
                self._place = place
            return self._batch
