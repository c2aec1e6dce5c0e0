"""The desk: where every way in becomes a task, and every way out reads its journal."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

import structlog

from meshwright.agents.authority import check_caller, check_cycle
from meshwright.agents.costs import Costs
from meshwright.agents.escrow import Escrow
from meshwright.agents.feed import Feeds, Follower
from meshwright.agents.inbox import Inbox
from meshwright.agents.intake import new_task
from meshwright.agents.journal import Journal, conflict
from meshwright.agents.models.routing import check_wish
from meshwright.agents.reader import Shelf
from meshwright.agents.run import Run
from meshwright.agents.session import Sessions
from meshwright.agents.task import NewTask, Record, TaskName
from meshwright.agents.worker import Worker
from meshwright.core import telemetry, tracing
from meshwright.core.errors import (
    AgentNotFoundError,
    BudgetExceededError,
    MeshError,
    NoDeadLetterError,
    StoreFullError,
    TaskNotFoundError,
    UnavailableError,
)
from meshwright.core.ids import digest
from meshwright.core.interceptors import Caller
from meshwright.core.store import FULL_RETRY_S
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import SESSION_POLICY_REJECT, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import GetCostsRequest, GetCostsResponse, ResolveInputRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard
from meshwright.registry.client import RegistryClient

log = structlog.get_logger("desk")


@dataclass(frozen=True, slots=True)
class Taken:
    """A task that was accepted, or attached to; `joined` has seen it from its first event on."""

    name: TaskName
    joined: Follower | None = None


class Watched:
    """A task that is accepted when this is entered, and watched from before its first event until this is left."""

    __slots__ = ("_caller", "_desk", "_feeds", "_follower", "_task")

    def __init__(self, desk: "Desk", feeds: Feeds, task: NewTask, caller: Caller) -> None:
        self._caller = caller
        self._desk = desk
        self._feeds = feeds
        self._task = task

    async def __aenter__(self) -> Taken:
        """Accepts it.

        Raises:
            MeshError: It was not accepted, and nothing was kept.
        """
        name = self._task.name
        self._follower = self._feeds.join(name)
        try:
            return Taken(name, self._follower if await self._desk.begin(self._task, self._caller) else None)
        except BaseException:
            await self._feeds.leave(name, self._follower)
            raise

    async def __aexit__(self, *_: object) -> None:
        """Leaves its feed."""
        await self._feeds.leave(self._task.name, self._follower)


class Desk:
    """Accepts, watches and cancels tasks on behalf of the services.

    Args:
        worker: Runs this agent's tasks.
        journal: Where tasks live.
        feeds: How watchers learn of events.
        registry: Knows other agents, whose tasks are queued for them.
        sessions: The lines in which tasks of one conversation stand.
        inbox: Takes decisions of people.
        escrow: Budgets that tasks share; where one is used up, no new task is accepted.
        costs: What tasks have cost.
        callable_by: Who may give this agent tasks; empty: everyone.
        models: Names of models that a task of this agent may ask for.
        is_recursive: Whether they may come from below its own tasks.
    """

    def __init__(
        self,
        worker: Worker,
        journal: Journal,
        feeds: Feeds,
        registry: RegistryClient,
        *,
        sessions: Sessions,
        inbox: Inbox,
        escrow: Escrow,
        costs: Costs,
        callable_by: Collection[str] = (),
        models: Sequence[str] = (),
        is_recursive: bool = False,
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._feeds = feeds
        self._registry = registry
        self._sessions = sessions
        self._inbox = inbox
        self._escrow = escrow
        self._costs = costs
        self._card = AgentCard(callable_by=callable_by, recursive=is_recursive, models=models)

    async def queue(self, request: TaskRequest, idempotency_key: str, caller: Caller) -> Taken:
        """Accepts a task for whoever is free to run it.

        Args:
            request: As it came.
            idempotency_key: The HTTP header of that name; empty: none.
            caller: Who asks.

        Raises:
            MeshError: It was not accepted, and nothing was kept.
        """
        agent_id = request.agent_id or self._worker.agent_id
        task = new_task(request, agent_id, idempotency_key, caller, tracing.traceparent())
        await self._accept(task, caller, at_once=False)
        return Taken(task.name)

    def watched(self, request: TaskRequest, idempotency_key: str, caller: Caller) -> "Watched":
        """Accepts a task as `queue` does, runs it in this process where there is room, and watches it meanwhile."""
        agent_id = request.agent_id or self._worker.agent_id
        task = new_task(request, agent_id, idempotency_key, caller, tracing.caller())
        return Watched(self, self._feeds, task, caller)

    async def begin(self, task: NewTask, caller: Caller) -> bool:
        """Accepts a task; returns whether it is run in this process.

        Not cut off with its call: a task that was claimed but not begun would wait until its lease is over.
        """
        is_begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._worker.spawn(self._take_up(task, caller, is_begun))
        return await is_begun

    async def _take_up(self, task: NewTask, caller: Caller, is_begun: asyncio.Future[bool]) -> None:
        """Accepts a task and, where it is this process's to run, runs it."""
        try:
            run = await self._accept(task, caller, at_once=True)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, whatever it is
            if is_begun.done():
                log.warning("not_accepted", task_id=task.name.task_id, error=repr(error))
            else:
                is_begun.set_exception(error)
            return
        except asyncio.CancelledError:
            is_begun.cancel()
            raise
        if not is_begun.done():  # its caller has not gone
            is_begun.set_result(run is not None)
        if run:
            await self._worker.work(run)

    async def _accept(self, task: NewTask, caller: Caller, *, at_once: bool) -> Run | None:
        """Accepts a task; returns the run that this process is to work on, if so."""
        if self._worker.pressure.reason and not task.parent_id:
            await self._attach(task)
            return None
        card = self._card
        if task.agent_id != self._worker.agent_id:
            card = await self._card_of(task.agent_id, task.name)
            at_once = False
        if card.models:
            check_wish(task.request.model, card.models)
        check_caller(task.agent_id, card.callable_by, caller)
        check_cycle(task.agent_id, caller, is_recursive=card.recursive)
        task = self._escrow.sharing(task)
        await self._check_shared_budgets(task)
        has_ticket = await self._takes_free_turn(task)
        try:
            return await self._written(task, at_once=at_once)
        except StoreFullError:
            await self._attach(task)
            return None
        except MeshError:
            if has_ticket:
                await self._sessions.abandon(task.name, task.session_id)
            raise

    async def _written(self, task: NewTask, *, at_once: bool) -> Run | None:
        place = self._worker.place() if at_once else contextlib.nullcontext(enter_result=False)
        run = None
        with place as has_place:
            events = [self._worker.runner.started(task.parent_id)] if has_place else []
            version = self._worker.pinning
            accepted = await self._journal.accept(task, claim=has_place, events=events, version=version)
            if accepted.claim and self._worker.is_claiming:
                run = self._worker.hold(accepted.claim, Record.fresh(task, accepted.time_ms, accepted.shared))
                run.begun_with(events, accepted.time_ms)
            elif accepted.claim:  # draining has begun meanwhile
                await self._journal.release(accepted.claim)
        if accepted.is_new:
            telemetry.TASKS_ACCEPTED.labels(task.agent_id, telemetry.TENANTS.label(task.name.tenant)).inc()
        if task.session_id and accepted.is_new and not run:
            await self._sessions.enter(task.name, task.session_id)
        if has_place and not run:
            self._worker.wake()
        return run

    async def _check_shared_budgets(self, task: NewTask) -> None:
        """Refuses a new root whose shared budgets are used up; a known one is attached to.

        Raises:
            BudgetExceededError: One is.
        """
        try:
            await self._escrow.check(task)
        except BudgetExceededError:
            if not await self._is_known(task.name):
                telemetry.count_refusal(task.agent_id, task.name.tenant, "task")
                raise

    async def _attach(self, task: NewTask) -> None:
        """Attaches to a task while the store is too full for new ones; it is run wherever it is.

        Raises:
            StoreFullError: It would be a new one.
            TaskConflictError: Its id is taken by another request.
        """
        try:
            record = await self._journal.record(task.name)
        except TaskNotFoundError:
            self._worker.pressure.check()
            raise StoreFullError("the store is full: try again later", retry_after_s=FULL_RETRY_S) from None
        if record.hash != task.hash:
            raise conflict(task.name)

    async def _takes_free_turn(self, task: NewTask) -> bool:
        """Draws a ticket for a task that is not to wait for another one of its session; a known one has its own.

        Raises:
            SessionBusyError: It would have to wait.
        """
        is_alone = bool(task.session_id) and task.request.session_policy == SESSION_POLICY_REJECT
        if not is_alone or await self._is_known(task.name):
            return False
        await self._sessions.check_free(task.name, task.session_id)
        return True

    async def _is_known(self, name: TaskName) -> bool:
        try:
            await self._journal.record(name)
        except TaskNotFoundError:
            return False
        return True

    async def _card_of(self, agent_id: str, name: TaskName) -> AgentCard:
        """Returns what another agent says of itself; one that is not here keeps the tasks that it has.

        Raises:
            AgentNotFoundError: It is not here, and the task is new.
        """
        try:
            card = await self._registry.find(agent_id)
        except TimeoutError:
            raise UnavailableError("the registry does not answer: try again", retry_after_s=1) from None
        if card is None and not await self._is_known(name):
            raise AgentNotFoundError(f"no agent {agent_id} is here: `meshwright agent list` shows who is")
        return card or AgentCard(recursive=True)

    def follow(self, taken: Taken, after: int = 0) -> AsyncGenerator[StepEvent | None, None]:
        """Yields a task's events; None stands for a heartbeat that is due."""
        return self._feeds.follow(taken.name, after, joined=taken.joined)

    async def response(self, name: TaskName) -> TaskResponse:
        """Reads a task as it stands."""
        return await self._journal.response(name)

    async def record(self, name: TaskName) -> Record:
        """Reads a task's record."""
        return await self._journal.record(name)

    async def page(
        self, caller: Caller, before: tuple[int, str] | None, limit: int, shelf: Shelf
    ) -> list[tuple[int, str]]:
        """Lists a caller's tasks, newest first."""
        return await self._journal.page(TaskName(caller.tenant, caller.principal, ""), before, limit, shelf=shelf)

    async def responses(self, names: list[TaskName]) -> list[TaskResponse]:
        """Reads several tasks as they stand."""
        return await self._journal.responses(names)

    async def cancel(self, name: TaskName, reason: str, caller: Caller) -> TaskResponse:
        """Stops a task and its children; one that has ended stays as it is."""
        await self._journal.record(name)
        for idle in await self._journal.cancel(name, reason, caller.principal):
            await self._worker.end_idle(idle)
        return await self._journal.response(name)

    async def resolve(self, name: TaskName, request: ResolveInputRequest, caller: Caller) -> TaskResponse:
        """Hands a person's decision to the task that waits for it."""
        await self._inbox.resolve(name, request, caller)
        return await self._journal.response(name)

    async def costs(self, request: GetCostsRequest, caller: Caller) -> GetCostsResponse:
        """Sums what a caller's tenant has spent.

        Raises:
            InvalidRequestError: A day or the grouping is none.
        """
        return await self._costs.table(caller.tenant, request)

    async def retry_dead_letter(self, name: TaskName, caller: Caller) -> TaskResponse:
        """Starts a task that was given up anew, once, under an id made from its own."""
        record = await self._journal.record(name)
        if not record.is_poison:
            raise NoDeadLetterError(f"task {name.task_id} was not given up: `meshwright task get` tells how it stands")
        request = TaskRequest()
        request.CopyFrom(record.request)
        request.task_id = f"retry-{digest(name.task_id)[:32]}"
        taken = await self.queue(request, "", caller)
        await self._journal.drop(name, caller.principal, taken.name.task_id)
        return await self._journal.response(taken.name)

    async def drop_dead_letter(self, name: TaskName, caller: Caller) -> TaskResponse:
        """Takes a task off the list of those that were given up."""
        record = await self._journal.record(name)
        if not record.is_poison:
            raise NoDeadLetterError(f"task {name.task_id} was not given up: there is nothing to drop")
        await self._journal.drop(name, caller.principal)
        return await self._journal.response(name)
