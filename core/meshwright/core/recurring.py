"""A failure that comes again and again while something is away, and when it is worth a line of the log. Pure."""

import math
import time
from collections.abc import Callable

EVERY_S = 60.0
STEADY_S = 10.0
"""So long all has to go well before the next failure is a first one again."""


class Recurring:
    """Tells the first failure from those that follow it: of these one a minute is news.

    Where nobody can say that it goes well again, `is_news` alone will do.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = -math.inf
        self._well_since: float | None = -math.inf
        self._is_told = False

    def is_news(self) -> bool:
        """Notes a failure; returns whether to say so."""
        now = self._clock()
        is_first = self._well_since is not None and now - self._well_since >= STEADY_S
        self._well_since = None
        if not is_first and now - self._told_at < EVERY_S:
            return False
        self._told_at, self._is_told = now, True
        return True

    def is_over(self) -> bool:
        """Notes that it went well; returns whether to say so: it is the end of failures that were told."""
        if self._well_since is None:
            self._well_since = self._clock()
        was_told, self._is_told = self._is_told, False
        return was_told
