"""A client of the rehearsal: keyed calls at the edge, repeated by the client's rule until they are answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from meshwright.cli.chaos.job import Job, outcome
from meshwright.cli.chaos.rig import Told
from meshwright.cli.edge import Edge
from meshwright.core import channel
from meshwright.core.canonical import to_struct
from meshwright.core.errors import DeadlineExceededError, InternalError, MeshError
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_SKIP,
    TASK_STATUS_INPUT_REQUIRED,
    PendingInput,
    TaskRequest,
    TaskResponse,
)
from meshwright.gen.agents.v1.task_service_pb2 import ResolveInputRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2 import InvokeToolRequest

T = TypeVar("T")
Kind = Literal["run", "stream", "tool"]
PATIENCE_S = 60.0
"""How long a client repeats a call; one that is not answered by then has failed."""
CALL_S = 30.0
RETRY_S = 0.2
AGENT, TOOL = "trader", "book"


@dataclass(slots=True)
class Call:
    """One keyed call, with all its repetitions.

    Attributes:
        kind: `run` a task and wait, `stream` its steps, or call a `tool`.
        job: What is asked for; its name is the key.
        started: When, on the monotonic clock.
        ended: When it was answered, or given up.
        retries: How often it was repeated, by the reason of the refusal.
        failure: The reason why it was given up; empty: it was answered.
        words: The same for people.
    """

    kind: Kind
    job: Job
    started: float
    ended: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    words: str = ""

    @property
    def took_s(self) -> float:
        """Seconds that its caller waited."""
        return self.ended - self.started


def is_repeated(error: MeshError) -> bool:
    """Whether a keyed call is made again: what may pass, what was cut on the way, what was not answered in time."""
    return error.is_retryable or isinstance(error, InternalError | DeadlineExceededError)


class Client:
    """Makes keyed calls.

    Args:
        edge: Where.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._acts: dict[Kind, Callable[[Call, Told], Awaitable[None]]] = {
            "run": self._run,
            "stream": self._stream,
            "tool": self._book,
        }

    async def make(self, call: Call, told: Told) -> None:
        """Makes a call and notes in it, and in what its caller is told, what became of it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._acts[call.kind](call, told)
        except TimeoutError:
            call.failure, call.words = "NO_ANSWER", f"within {PATIENCE_S:g} s, after {dict(call.retries)}"
        except MeshError as error:
            told.refusal = error
            call.failure, call.words = error.reason, error.message
        call.ended = time.monotonic()

    async def _run(self, call: Call, told: Told) -> None:
        request = request_of(call.job)
        while True:
            answer: TaskResponse = await self._repeated(
                call, lambda: self._edge.call(self._edge.agents.RunTask, request, CALL_S)
            )
            told.is_accepted = True
            if answer.status != TASK_STATUS_INPUT_REQUIRED:
                told.result = answer
                return
            for pending in answer.pending_inputs:
                await self._decide(call, pending)

    async def _stream(self, call: Call, told: Told) -> None:
        """Follows the steps; a stream that breaks is resumed after the last one that came."""
        try:
            async for event in channel.stream(self._edge.agents.StreamSteps, request_of(call.job), timeout_s=None):
                await self._note(call, told, event)
        except MeshError as error:
            if not is_repeated(error):
                raise
            call.retries[error.reason] += 1
        if not told.is_accepted:
            request = request_of(call.job)
            await self._repeated(call, lambda: self._edge.call(self._edge.tasks.SubmitTask, request))
            told.is_accepted = True
        while told.result is None:
            async for event in self._edge.watch(call.job.name, len(told.events)):
                await self._note(call, told, event)
            await asyncio.sleep(RETRY_S)

    async def _note(self, call: Call, told: Told, event: StepEvent) -> None:
        told.is_accepted = True
        if event.sequence:
            told.events.append(event)
        if event.HasField("result"):
            told.result = event.result
        while event.HasField("child"):
            event = event.child.event
        if event.HasField("input_requested"):
            await self._decide(call, event.input_requested)

    async def _decide(self, call: Call, pending: PendingInput) -> None:
        """Decides as a person would: a call of which nobody knows whether it ran is not run again."""
        request = ResolveInputRequest(
            task_id=pending.origin_task_id or call.job.name,
            input_id=pending.input_id,
            decision=DECISION_SKIP,
            intent_digest=pending.intent_digest,
        )
        await self._repeated(call, lambda: self._edge.call(self._edge.tasks.ResolveInput, request))

    async def _book(self, call: Call, told: Told) -> None:
        job = call.job
        arguments = {"job": job.name, "step": 0, "into": job.into, "pace_s": job.pace_s}
        request = InvokeToolRequest(name=TOOL, arguments=to_struct(arguments), idempotency_key=job.name)
        answer = await self._repeated(call, lambda: self._edge.call(self._edge.tools.InvokeTool, request))
        if answer.result.string_value != outcome(job.name, 0):
            call.failure, call.words = "WRONG_ANSWER", repr(answer.result.string_value)

    @staticmethod
    async def _repeated(call: Call, act: Callable[[], Awaitable[T]]) -> Any:
        while True:
            try:
                return await act()
            except MeshError as error:
                if not is_repeated(error):
                    raise
                call.retries[error.reason] += 1
                await asyncio.sleep(error.retry_after_s or RETRY_S)


def request_of(job: Job) -> TaskRequest:
    """Asks the first agent to do a job; the job's name is the key."""
    return TaskRequest(task_id=job.name, agent_id=AGENT, prompt=job.prompt, max_steps=25)
