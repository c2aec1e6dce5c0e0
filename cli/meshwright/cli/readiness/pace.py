"""How fast a server is asked: a few requests at a time, and none while it says that they are too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshwright.core.errors import RateLimitedError

AT_ONCE = 8
"""Requests that are open at a time."""
PAUSE_S = 1.0
"""The shortest pause, and that of a server that does not say how long."""
PATIENCE_S = 45.0
"""Bounds all pauses together: looking at a mesh lasts a minute at most."""


class Pace:
    """One gate before all requests to a server: where one of them was too many, all wait."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._opens = 0.0
        self._left_s = PATIENCE_S

    @property
    def is_slowed(self) -> bool:
        """Whether the server ever asked to be asked less."""
        return self._opens > 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until one more request may be open, and lets it be that one."""
        async with self._turns:
            now = asyncio.get_running_loop().time
            while (left_s := self._opens - now()) > 0:  # noqa: ASYNC110 - a time, which may have moved meanwhile
                await asyncio.sleep(left_s)
            yield

    def slow(self, told: str, why: str) -> None:
        """Holds all requests back, after one that was too many.

        Args:
            told: Seconds, as the header `retry-after` has them; whatever is no number stands for the shortest pause.
            why: What the server says of it.

        Raises:
            RateLimitedError: They would be held back for too long.
        """
        now = asyncio.get_running_loop().time()
        pause_s = max(PAUSE_S, float(told)) if told.isascii() and told.isdecimal() else PAUSE_S
        longer_s = now + pause_s - max(now, self._opens)
        if longer_s > self._left_s:
            raise RateLimitedError(f"{why}; it was waited for {PATIENCE_S - self._left_s:.0f} s")
        if longer_s > 0:
            self._left_s -= longer_s
            self._opens = now + pause_s
