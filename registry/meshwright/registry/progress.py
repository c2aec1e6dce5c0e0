"""Progress: what a running tool reports, thinned out for those who watch."""

import asyncio
import contextlib
from collections.abc import Callable

from meshwright.core.facts import shortened

MIN_INTERVAL_S = 0.1
MESSAGE_BYTES = 200
UNKNOWN = -1.0

OnProgress = Callable[[float, str], None]
"""Takes a share, 0..1 or negative, and one short line."""


class Reporter:
    """Passes on at most ten reports a second; of those between, the last one wins.

    Args:
        tell: Called in the loop that is running now.
    """

    def __init__(self, tell: OnProgress) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        self._latest: tuple[float, str] | None = None
        self._is_awaited = False
        self._has_ended = False

    def offer(self, fraction: float, message: str) -> None:
        """Takes a report, from any thread."""
        self._latest = float(fraction), str(message)
        if self._is_awaited or self._has_ended:
            return
        self._is_awaited = True
        with contextlib.suppress(RuntimeError):  # the loop has ended before a thread that nobody waits for
            self._loop.call_soon_threadsafe(self._due)

    def end(self) -> None:
        """Passes on what is left; what a tool reports later is lost."""
        self._pass_on()
        self._has_ended = True

    def _due(self) -> None:
        wait_s = self._next - self._loop.time()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._pass_on)
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        self._is_awaited = False  # before the report is read: one that comes now is passed on by itself
        latest, self._latest = self._latest, None
        if latest is not None and not self._has_ended:
            self._next = self._loop.time() + MIN_INTERVAL_S
            self._tell(*bounded(*latest))


def bounded(fraction: float, message: str) -> tuple[float, str]:
    """Brings a report into its bounds: what is no share of the whole is unknown, a message is one short line."""
    share = min(fraction, 1.0) if fraction >= 0 else UNKNOWN  # a NaN is not
    return share, shortened(" ".join(message.split()), MESSAGE_BYTES)
