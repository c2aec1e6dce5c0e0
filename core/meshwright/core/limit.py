"""Time limits on hot paths."""

import asyncio
from types import TracebackType
from typing import Any, Self


class Limit:
    """Bounds the time of what is awaited inside: `asyncio.timeout` at a third of its price, for what every task does.

    Attributes:
        after_s: Seconds.
        is_over: Whether the time was over before the end.

    Raises:
        TimeoutError: On the way out: the time was over, and nobody else cancelled the task.
    """

    __slots__ = ("_before", "_task", "_timer", "after_s", "is_over")

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self.is_over = False

    def __enter__(self) -> Self:
        """Starts the clock."""
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task, "a limit is for what runs in a task"
        self._task = task
        self._before = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self.after_s, self._end)
        return self

    def _end(self) -> None:
        self.is_over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the clock; a cancellation by it becomes a `TimeoutError`."""
        self._timer.cancel()
        if self.is_over and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
