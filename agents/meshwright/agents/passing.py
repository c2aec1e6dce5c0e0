"""Passing frames: shown to whoever watches a task, and not kept."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from meshwright.agents.feed import Feeds
from meshwright.agents.journal import Journal
from meshwright.agents.task import Entry, TaskName
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent

Report = Callable[[float, str], None]
"""Takes how far a call has come, 0..1 or negative where nobody knows, and one line for people; must not block."""


class Passing:
    """Shows the frames of one part of a run, in their order, at most one every `every_s`.

    Args:
        journal: Tells other processes.
        feeds: Tells watchers here.
        name: The task.
        every_s: What comes within that time goes as one frame.
        frame: Makes the frame of all that has come since the last one; None: nothing has.
    """

    def __init__(
        self,
        journal: Journal,
        feeds: Feeds,
        name: TaskName,
        every_s: float,
        frame: Callable[[], StepEvent | None],
    ) -> None:
        self._journal = journal
        self._feeds = feeds
        self._name = name
        self._every_s = every_s
        self._frame = frame
        self._timer: asyncio.TimerHandle | None = None
        self._showing: asyncio.Task[None] | None = None

    def came(self) -> None:
        """Notes that there is something to show."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._show)

    def _show(self) -> None:
        self._timer = None
        self._showing = asyncio.create_task(self._flush(self._showing))

    async def _flush(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await before
        frame = self._frame()
        if frame is None:
            return
        passing = Entry(0, int(time.time() * 1000), "", frame.SerializeToString()).event(self._name.task_id)
        self._feeds.show_passing(self._name, passing)
        with contextlib.suppress(MeshError):  # best effort
            await self._journal.pass_on(self._name, frame)

    async def close(self) -> None:
        """Shows what is left."""
        if self._timer:
            self._timer.cancel()
        if self._timer or self._showing:
            await self._flush(self._showing)
