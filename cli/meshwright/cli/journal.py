"""A task's journal as a command reads it: from its first event to the newest, without waiting for more."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from meshwright.cli.edge import Edge
from meshwright.core.errors import DeadlineExceededError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskResponse

READING_S = 20.0


async def journal(mesh: Edge, task: TaskResponse, principal: str = "") -> AsyncGenerator[StepEvent, None]:
    """Yields what a task and those below it have written so far.

    Args:
        mesh: The edge to ask.
        task: As it stands; later events are left out.
        principal: Whose it is; empty: the caller's own.

    Raises:
        DeadlineExceededError: The journal is not read in time.
    """
    steps = mesh.watch(task.task_id, principal=principal)
    try:
        async with asyncio.timeout(READING_S), contextlib.aclosing(steps) as events:
            while task.last_sequence:
                event = await anext(events)
                yield event
                if max(event.sequence, event.gap.to_sequence) >= task.last_sequence:
                    break
    except TimeoutError:
        raise DeadlineExceededError(f"the journal of {task.task_id} was not read within {READING_S:g} s") from None
    except StopAsyncIteration:  # it is gone
        pass
