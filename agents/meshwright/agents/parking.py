"""Parking: a task that waits for others gives up its place: journaled, no slot, no lease, no process."""

import time

from meshwright.agents.run import Run, persistently
from meshwright.agents.session import Sessions
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_PARKED, RunnerNotice, StepEvent

PARK_AFTER_S = 1.0


class Parked(Exception):  # noqa: N818 - no error: the run ends here and goes on elsewhere
    """The task was given up until somebody wakes it."""


async def wait_for_others(run: Run) -> None:
    """Waits until a call of the step can go on, or none is open any more.

    Raises:
        Parked: It takes longer, or it is people who are waited for: the last child's end or a decision wakes the task.
    """
    ends = time.monotonic() + (PARK_AFTER_S if run.state.children else 0)
    async with run.feeds.following(run.record.name) as follower:
        await run.catch_up()
        while run.state.open_calls and not run.state.actionable and not run.state.verdict:
            try:
                fresh = await follower.next(max(0.01, ends - time.monotonic()))
            except TimeoutError:
                await park(run, parked(run))
                fresh = None
            if fresh is None or fresh.sequence > run.state.sequence:
                await run.catch_up()


async def wait_for_people(run: Run) -> None:
    """Waits until everything that the task asks is decided.

    Raises:
        Parked: It is not: a decision wakes the task.
    """
    while run.state.asking and not run.state.verdict:
        await park(run, parked(run))
        await run.catch_up()


async def wait_for_turn(run: Run, sessions: Sessions) -> None:
    """Waits until the earlier tasks of the session have ended.

    Raises:
        Parked: They have not: the one before wakes the task.
    """
    session_id = run.record.session_id
    if not session_id:
        return
    while not await persistently(sessions.is_turn, run.record.name, session_id):
        event = run.event(
            notice=RunnerNotice(kind=NOTICE_KIND_PARKED, detail="waits for the task before it in its session")
        )
        await park(run, event, is_turn=True)
        await run.catch_up()


def parked(run: Run) -> StepEvent:
    """Says in the journal what is waited for."""
    children, people = len(run.state.children), len(run.state.asking)
    parts = [f"{children} tasks of other agents"] if children else []
    parts += [f"{people} decisions of people"] if people else []
    return run.event(notice=RunnerNotice(kind=NOTICE_KIND_PARKED, detail=f"waits for {' and '.join(parts)}"))


async def park(run: Run, event: StepEvent, *, is_turn: bool = False) -> None:
    """Gives the task up, unless something has happened since its journal was read.

    Raises:
        Parked: It was given up.
    """
    is_parked = await persistently(
        run.journal.park,
        run.claim,
        run.state.sequence,
        event,
        children=len(run.state.children),
        is_turn=is_turn,
        is_held=bool(run.state.asking),
    )
    if is_parked:
        raise Parked
