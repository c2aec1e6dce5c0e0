"""A real task that is given to an agent, to see what becomes of it; small, and given once."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from google.protobuf import json_format

from meshwright.cli.readiness.peer import Answer, Peer
from meshwright.core.errors import MeshError, RateLimitedError, UnavailableError
from meshwright.core.ids import uuid7
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TASK_STATUS_INPUT_REQUIRED,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import GetCostsResponse

PROMPT = "Answer with the word ready, and nothing else."
TOKENS, MICROS, STEPS = 2_048, 20_000, 2
"""What a trial may take at the most; 20,000 micros are two cents."""
TASK_S = 25.0
POLL_S = 0.3
COSTS_S = 10.0
"""Costs are counted seconds after a task's end."""
OTHERS = "*"
"""The row of all sessions of a day beyond the first thousand."""
ENDED = (TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TASK_STATUS_CANCELLED, TASK_STATUS_INPUT_REQUIRED)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a task that was sent three times: twice the same, once changed.

    Attributes:
        sent_id: The id that it was given.
        first: What the first request was answered.
        ended: The task at its end.
        repeated: What the same request was answered after the end.
        after: The task after that.
        changed: What another request of the same id was answered.
        events: All its steps.
        resumed: Its steps after the middle one.
        middle: Sequence of the middle one.
        costs: The row of its session, or that of all others; an error: nobody may tell.
    """

    sent_id: str
    first: TaskResponse
    ended: TaskResponse
    repeated: TaskResponse
    after: TaskResponse
    changed: Answer
    events: list[StepEvent]
    resumed: list[StepEvent]
    middle: int
    costs: GetCostsResponse | MeshError


async def trial(edge: Peer, agent: str) -> Trial:
    """Gives an agent a task, waits for its end, and asks again.

    Raises:
        MeshError: It was not accepted, or did not end in time.
    """
    task_id = f"doctor-{uuid7()}"
    first = (await submitted(edge, agent, task_id, PROMPT)).read(TaskResponse())
    ended = await final(edge, task_id)
    repeated = (await submitted(edge, agent, task_id, PROMPT)).read(TaskResponse())
    after = await edge.read(f"/v1/tasks/{task_id}", TaskResponse())
    changed = await submitted(edge, agent, task_id, f"{PROMPT} Now.")
    events = await steps(edge, task_id, 0)
    middle = events[len(events) // 2].sequence if events else 0
    resumed = await steps(edge, task_id, middle)
    costs = await session_costs(edge, ended)
    return Trial(task_id, first, ended, repeated, after, changed, events, resumed, middle, costs)


async def submitted(edge: Peer, agent: str, task_id: str, prompt: str) -> Answer:
    """Sends the task; its session has the same name, so that its cost has a row of its own."""
    body = {
        "task_id": task_id,
        "session_id": task_id,
        "prompt": prompt,
        "max_steps": STEPS,
        "token_budget": TOKENS,
        "cost_budget_micros": str(MICROS),
        "max_tool_calls": 1,
        "timeout": f"{TASK_S:g}s",
        "no_cache": True,
        "metadata": {"made_by": "meshwright doctor"},
    }
    return await edge.ask("POST", f"/v1/agents/{quote(agent, safe='')}/tasks", json.dumps(body).encode())


async def final(edge: Peer, task_id: str) -> TaskResponse:
    """Waits for a task's end, or until it waits for a person.

    Raises:
        UnavailableError: It lasts too long.
        RateLimitedError: It may have ended, but could not be asked for often enough.
    """
    try:
        async with asyncio.timeout(TASK_S):
            while True:
                task = await edge.read(f"/v1/tasks/{task_id}", TaskResponse())
                if task.status in ENDED:
                    return task
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        kind = RateLimitedError if edge.pace.is_slowed else UnavailableError
        raise kind(f"the task {task_id} was not seen to end within {TASK_S:g} s") from None


async def steps(edge: Peer, task_id: str, after: int) -> list[StepEvent]:
    """Reads the durable steps of an ended task after a sequence.

    Raises:
        MeshError: The edge refuses, or answers with something else.
    """
    answer = await edge.ask("GET", f"/v1/tasks/{task_id}/steps?after_sequence={after}")
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise answer.error
    try:
        events = [json_format.Parse(line, StepEvent()) for line in answer.body.splitlines() if line.strip()]
    except (json_format.ParseError, ValueError, RecursionError):
        raise UnavailableError("answers a stream that is none of steps") from None
    return [event for event in events if event.sequence]


async def session_costs(edge: Peer, task: TaskResponse) -> GetCostsResponse | MeshError:
    """Reads what the trial's session has cost, once it is counted; the error where nobody may tell."""
    day = (task.create_time.ToDatetime(UTC) if task.HasField("create_time") else datetime.now(UTC)).date()
    path = f"/v1/costs?by=COST_GROUPING_SESSION&from_day={day}&to_day={day}"
    ends = asyncio.get_running_loop().time() + COSTS_S
    while True:
        try:
            found = await edge.read(path, GetCostsResponse())
        except MeshError as error:
            return error
        rows = [row for row in found.rows if row.name.endswith(f"/{task.session_id}")]
        if rows or not task.usage.cost_micros or asyncio.get_running_loop().time() > ends:
            return GetCostsResponse(rows=rows or [row for row in found.rows if row.name == OTHERS])
        await asyncio.sleep(1)
