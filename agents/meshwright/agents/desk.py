"""The desk: where every way in becomes a task, and every way out reads its journal."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from meshwright.agents.feed import Feeds
from meshwright.agents.intake import new_task
from meshwright.agents.journal import Journal
from meshwright.agents.task import Record, TaskName
from meshwright.agents.worker import Worker
from meshwright.core.errors import AgentNotFoundError, TaskNotFoundError, UnavailableError
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse
from meshwright.registry.client import RegistryClient

log = structlog.get_logger("desk")


@dataclass(frozen=True, slots=True)
class Taken:
    """A task that was accepted, or attached to."""

    name: TaskName
    is_local: bool


class Desk:
    """Accepts, watches and cancels tasks on behalf of the services.

    Args:
        worker: Runs this agent's tasks.
        journal: Where tasks live.
        feeds: How watchers learn of events.
        registry: Knows other agents, whose tasks are queued for them.
    """

    def __init__(self, worker: Worker, journal: Journal, feeds: Feeds, registry: RegistryClient) -> None:
        self._worker = worker
        self._journal = journal
        self._feeds = feeds
        self._registry = registry

    async def accept(self, request: TaskRequest, idempotency_key: str, caller: Caller, *, at_once: bool) -> Taken:
        """Accepts a task.

        Args:
            request: As it came.
            idempotency_key: The HTTP header of that name; empty: none.
            caller: Who asks.
            at_once: Run it in this process where there is room, instead of queueing it.

        Raises:
            MeshError: It was not accepted, and nothing was kept.
        """
        agent_id = request.agent_id or self._worker.agent_id
        task = new_task(request, agent_id, idempotency_key, caller)
        is_own = agent_id == self._worker.agent_id
        if not is_own:
            await self._check_agent(agent_id, task.name)
        place = self._worker.place() if at_once and is_own else contextlib.nullcontext(enter_result=False)
        with place as has_place:
            events = [self._worker.runner.started(task.parent_id)] if has_place else []
            accepted = await self._journal.accept(task, claim=has_place, events=events)
            is_local = accepted.claim is not None and self._worker.is_claiming
            if accepted.claim and is_local:
                run = self._worker.launch(accepted.claim, Record.fresh(task, accepted.time_ms))
                run.begun_with(events, accepted.time_ms)
            elif accepted.claim:  # draining has begun meanwhile
                await self._journal.release(accepted.claim)
        if has_place and not is_local:
            self._worker.wake()
        return Taken(task.name, is_local)

    async def _check_agent(self, agent_id: str, name: TaskName) -> None:
        """Refuses tasks for agents that are not here; one that is known already is attached to all the same."""
        try:
            card = await self._registry.find(agent_id)
        except TimeoutError:
            raise UnavailableError("the registry does not answer: try again", retry_after_s=1) from None
        if card is None:
            try:
                await self._journal.record(name)
            except TaskNotFoundError:
                message = f"no agent {agent_id} is here: `meshwright agent list` shows who is"
                raise AgentNotFoundError(message) from None

    async def follow(self, taken: Taken, after: int = 0) -> AsyncGenerator[StepEvent | None, None]:
        """Yields a task's events; None stands for a heartbeat that is due."""
        async with contextlib.aclosing(self._feeds.follow(taken.name, after, is_local=taken.is_local)) as events:
            async for event in events:
                yield event

    async def response(self, name: TaskName) -> TaskResponse:
        """Reads a task as it stands."""
        return await self._journal.response(name)

    async def record(self, name: TaskName) -> Record:
        """Reads a task's record."""
        return await self._journal.record(name)

    async def page(self, caller: Caller, before: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
        """Lists a caller's tasks, newest first."""
        return await self._journal.page(caller.tenant, caller.principal, before, limit)

    async def responses(self, names: list[TaskName]) -> list[TaskResponse]:
        """Reads several tasks as they stand."""
        return await self._journal.responses(names)

    async def cancel(self, name: TaskName, reason: str) -> TaskResponse:
        """Stops a task and its children; one that has ended stays as it is."""
        await self._journal.record(name)
        for idle in await self._journal.cancel(name, reason):
            await self._worker.end_idle(idle)
        return await self._journal.response(name)
