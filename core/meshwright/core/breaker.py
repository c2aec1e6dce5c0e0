"""A circuit breaker: a backend that keeps failing is left alone, then tried by one call. Pure."""

from collections import deque
from collections.abc import Callable
from enum import IntEnum

WINDOW_S = 30.0
WINDOW_CALLS = 50
FEWEST_CALLS = 5
FAILING_SHARE = 0.5
"""Of at least so many calls within the window, so many failed: the circuit opens."""
OPEN_S = 10.0
TRIAL_RETRY_S = 1.0


class Circuit(IntEnum):
    """How a breaker stands."""

    CLOSED = 0
    ON_TRIAL = 1
    OPEN = 2

    @property
    def word(self) -> str:
        """The state in the field's own words: `closed`, `half-open`, `open`."""
        return WORDS[self]


WORDS = {Circuit.CLOSED: "closed", Circuit.ON_TRIAL: "half-open", Circuit.OPEN: "open"}


class Breaker:
    """Lets calls through while their backend works.

    Every change of state begins a new epoch. A call that was let through in an earlier one says nothing any more: its
    answer is late.

    Args:
        clock: Returns seconds that never go back.
        trial_s: Time for a trial; one that has not ended by then is given up, and another call may try.
        told: Called with each new state, and with what opened the circuit last.
    """

    def __init__(self, clock: Callable[[], float], trial_s: float, told: Callable[[Circuit, str], None]) -> None:
        self._clock = clock
        self._trial_s = trial_s
        self._told = told
        self._epoch = 0
        self._ends = 0.0
        self._recent: deque[tuple[float, bool]] = deque(maxlen=WINDOW_CALLS)
        self.state = Circuit.CLOSED
        self.cause = ""
        """What opened it last: how many calls of how many failed."""

    @property
    def retry_after_s(self) -> float:
        """Seconds after which a refused call may be let through."""
        left = max(0.0, self._ends - self._clock())
        return left if self.state is Circuit.OPEN else min(left, TRIAL_RETRY_S)

    def enter(self) -> int | None:
        """Lets a call through and returns its epoch, to be handed to `record` and `leave`; None: not now."""
        if self.state is Circuit.CLOSED:
            return self._epoch
        if self._clock() < self._ends:
            return None
        self._move(Circuit.ON_TRIAL, self._trial_s)
        return self._epoch

    def record(self, epoch: int, *, is_failure: bool) -> None:
        """Takes down how the backend did for a call."""
        if epoch != self._epoch:
            return
        if self.state is Circuit.ON_TRIAL:
            self.cause = "a trial that failed" if is_failure else self.cause
            self._move(Circuit.OPEN if is_failure else Circuit.CLOSED, OPEN_S)
            return
        now = self._clock()
        self._recent.append((now, is_failure))
        if not is_failure:  # only a failure can open it
            return
        lately = [failed for at, failed in self._recent if at > now - WINDOW_S]
        if len(lately) >= FEWEST_CALLS and sum(lately) >= FAILING_SHARE * len(lately):
            self.cause = f"{sum(lately)} failures of {len(lately)} calls in {WINDOW_S:g} s"
            self._move(Circuit.OPEN, OPEN_S)

    def leave(self, epoch: int) -> None:
        """Ends a call; a trial that told nothing makes room for another."""
        if epoch == self._epoch and self.state is Circuit.ON_TRIAL:
            self._ends = self._clock()

    def _move(self, state: Circuit, lasts_s: float) -> None:
        self._epoch += 1
        self._ends = self._clock() + lasts_s
        self._recent.clear()
        self.state = state
        self._told(state, self.cause)
