"""The worker: claims tasks of one agent, keeps their leases, sweeps after those who were lost."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from meshwright.agents.account import Account
from meshwright.agents.agent import Agent
from meshwright.agents.backlog import Backlog
from meshwright.agents.feed import Feeds
from meshwright.agents.inbox import Inbox
from meshwright.agents.journal import Claim, Journal
from meshwright.agents.memory import Outbox
from meshwright.agents.pressure import Pressure
from meshwright.agents.result import idle_result, unreadable_result
from meshwright.agents.run import Run, persistently
from meshwright.agents.runner import Runner, tell_end
from meshwright.agents.task import Record, TaskName
from meshwright.core import telemetry
from meshwright.core.errors import ContentKeyMissingError, DataLossError, MeshError, TaskCancelledError
from meshwright.core.grant import Signer
from meshwright.core.process import ended
from meshwright.core.recurring import Recurring
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import FinishReason

log = structlog.get_logger("worker")
POLL_S = 1.0
SWEEP_S = 1.0
LEASE_MARGIN_S = 2.0
LAST_WORDS_S = 2.0
ISOLATION_S = 30.0
"""So long a worker takes nothing new while what it runs ends, so that a suspect can run alone."""


@dataclass(slots=True)
class Working:
    """A run and the asyncio task that runs it."""

    run: Run
    task: asyncio.Task[None]


class Worker:
    """Runs tasks of one agent, at most `concurrency` at once; one that took workers down before runs alone.

    Args:
        agent: Whose tasks are claimed.
        journal: Where tasks live; its owner name is this worker's.
        feeds: Tells when to look for work, and when a running task is to stop.
        runner: Runs one task.
        outbox: Relayed after every end and on every sweep.
        inbox: Applies what follows when people do not answer.
        pressure: How full the store is, measured on every sweep.
        signer: Signs the grants of running tasks.
        concurrency: Tasks at once; waiting ones cost nothing.
        is_claiming: Whether tasks are run here; a pure server runs none.
    """

    def __init__(
        self,
        agent: Agent,
        journal: Journal,
        feeds: Feeds,
        runner: Runner,
        *,
        outbox: Outbox,
        inbox: Inbox,
        pressure: Pressure,
        signer: Signer,
        concurrency: int,
        is_claiming: bool = True,
    ) -> None:
        self.agent_id = agent.name
        self._agent = agent
        self.runner = runner
        self._journal = journal
        self._feeds = feeds
        self._outbox = outbox
        self._inbox = inbox
        self.pressure = pressure
        self._signer = signer
        self._concurrency = concurrency
        self._is_claiming = is_claiming
        self._backlog = Backlog(journal, agent.name, agent.version)
        self._working: dict[str, Working] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._suspended: list[Claim] = []
        self._reserved = 0
        self._is_wanted = False
        self._turn = 0
        self._isolates_until = 0.0
        self._wake = asyncio.Event()
        self._beaten = time.monotonic()
        self._chores: list[asyncio.Task[None]] = []
        self._claiming: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Tasks being run."""
        return len(self._working)

    @property
    def pinning(self) -> str:
        """The version that tasks stay with which are begun here; empty: any version goes on with them."""
        return self._agent.version if self._agent.same_version else ""

    @property
    def is_claiming(self) -> bool:
        """Whether tasks are run here: not before the start, not while draining."""
        return self._claiming is not None and self._is_claiming

    @property
    def has_room(self) -> bool:
        """Whether one more task may be run here at once."""
        taken = len(self._working) + len(self._suspended) + self._reserved
        is_alone = any(working.run.claim.is_suspect for working in self._working.values())
        is_isolating = taken > 0 and time.monotonic() < self._isolates_until
        return self.is_claiming and taken < self._concurrency and not is_alone and not is_isolating

    @contextlib.contextmanager
    def place(self) -> Iterator[bool]:
        """Keeps a place for a task that is about to be claimed; False: there is none."""
        if not self.has_room:
            self._is_wanted = True
            yield False
            return
        self._reserved += 1
        try:
            yield True
        finally:
            self._reserved -= 1

    def start(self) -> None:
        """Starts to claim, beat and sweep."""
        self._beaten = time.monotonic()
        self._chores = [asyncio.create_task(self._beat()), asyncio.create_task(self._sweep())]
        if self._is_claiming:
            self._claiming = asyncio.create_task(self._claim())

    def wake(self, _ref: str = "") -> None:
        """Looks for ready tasks now."""
        self._wake.set()

    def interrupt(self, ref: str) -> None:
        """Stops a running task that was cancelled."""
        working = self._working.get(ref)
        if working and not working.run.stop_reason and not working.run.is_ending:
            working.run.stop_reason = "the task was cancelled"
            working.task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts what is to end before this process does.

        It has a context of its own: deadline and caller of the call that brought a task are not the task's.
        """
        task = asyncio.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def launch(self, claim: Claim, record: Record) -> None:
        """Starts to work on a task that this process owns."""
        run = self._run(claim, record)
        self._keep(run, self.spawn(self.work(run)))

    def hold(self, claim: Claim, record: Record) -> Run:
        """Makes the run of a task that the current asyncio task is about to `work` on."""
        run = self._run(claim, record)
        this = asyncio.current_task()
        assert this
        self._keep(run, this)
        return run

    def _run(self, claim: Claim, record: Record) -> Run:
        return Run(claim, record, self._journal, self._feeds, self._signer, delegates=self._agent.delegates)

    def _keep(self, run: Run, task: asyncio.Task[None]) -> None:
        log.debug("claimed", task_id=run.task_id, attempt=run.record.attempt)
        self._working[run.record.name.ref] = Working(run, task)
        telemetry.TASKS_RUNNING.labels(self.agent_id).set(self.running)

    async def work(self, run: Run) -> None:
        """Works on a task until it ends or belongs to somebody else."""
        name = run.record.name
        try:
            await self.runner.run(run)
        except MeshError as error:
            log.warning("run_lost", task_id=run.task_id, error=error.message)
        finally:
            working = self._working.get(name.ref)
            if working and working.run is run:
                del self._working[name.ref]
            telemetry.TASKS_RUNNING.labels(self.agent_id).set(self.running)
            if self._is_wanted:  # somebody waits for the place
                self._is_wanted = False
                self._wake.set()
            if run.has_ended:
                with contextlib.suppress(MeshError):
                    await self._settle(run.record)
            else:
                await self._feeds.give_up(name)

    async def _settle(self, ended: Record) -> None:
        """Applies at once what others may wait for, a session or a shared budget; the sweep does what this misses."""
        if ended.session_id:
            await self._outbox.relay(ended.name.partition(self._journal.store.partitions))
        elif ended.shared and not ended.parent_id:
            await self._outbox.free(ended.name)

    async def _claim(self) -> None:
        failing = Recurring()
        while self._is_claiming:
            self._wake.clear()
            is_asking = self.has_room  # else the store is not asked, and nobody knows how it is
            try:
                while await self._claim_one():
                    pass
            except MeshError as error:
                if failing.is_news():
                    log.warning("claim_failed", error=error.message)
            else:
                if is_asking and failing.is_over():
                    log.info("claims_again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def _claim_one(self) -> bool:
        partitions = self._journal.store.partitions
        with self.place() as has_place:
            for partition in range(self._turn, self._turn + partitions) if has_place else ():
                is_idle = not self._working and not self._suspended and self._reserved == 1
                offer = await self._journal.claim(
                    partition % partitions,
                    self.agent_id,
                    version=self._agent.version,
                    is_pinning=self._agent.same_version,
                    is_idle=is_idle,
                )
                if offer.should_isolate:
                    self._isolates_until = time.monotonic() + ISOLATION_S
                    return False
                if offer.claim:
                    self._turn = (partition + 1) % partitions
                    await self._take(offer.claim)
                    return True
        self._isolates_until = 0.0 if has_place else self._isolates_until
        return False

    async def _take(self, claim: Claim) -> None:
        try:
            record = await persistently(self._journal.record, claim.name)
        except DataLossError as error:
            await self._lose(claim.name, error, claim)
        else:
            self.launch(claim, record)

    async def _lose(self, name: TaskName, error: MeshError, claim: Claim | None = None) -> None:
        """Ends a task whose content cannot be read; in plain words where its data key cannot be read either."""
        log.error("task_unreadable", task_id=name.task_id, error=error.message)
        result = unreadable_result(name, error)
        for is_plain in (False, True):
            with contextlib.suppress(DataLossError, ContentKeyMissingError, TaskCancelledError):
                if claim:
                    await self._journal.finish(claim, "FAILED", [result], is_plain=is_plain)
                elif not await self._journal.finish_idle(name, "FAILED", result, is_plain=is_plain):
                    return
                self._count_end(self.agent_id, "FAILED", result)
                return

    async def _beat(self) -> None:
        lease_s = self._journal.lease_ms / 1000
        silence_s = lease_s - min(LEASE_MARGIN_S, lease_s / 3)
        failing = Recurring()
        while True:
            await asyncio.sleep(lease_s / 3)
            began = time.monotonic()
            try:
                async with asyncio.timeout(lease_s / 3):
                    await self._beat_once()
            except (MeshError, TimeoutError) as error:
                if failing.is_news():
                    told = str(error) or f"the store did not answer within {lease_s / 3:g} s"
                    log.warning("beat_failed", error=told)
                if time.monotonic() - self._beaten > silence_s:
                    self._suspend()
            else:
                self._beaten = began
                if failing.is_over():
                    log.info("beats_again")

    async def _beat_once(self) -> None:
        held = [working for working in self._working.values() if not self._is_hung(working)]
        beaten = await self._journal.beat([*(working.run.claim for working in held), *self._suspended])
        for working in held:
            ref = working.run.record.name.ref
            if self._working.get(ref) is not working:
                continue
            if ref in beaten.lost:
                log.warning("lease_lost", task_id=working.run.task_id)
                working.task.cancel()
            elif ref in beaten.cancelled:
                self.interrupt(ref)
        for claim in list(self._suspended):
            if claim.name.ref not in beaten.lost:
                await self._take(claim)
            self._suspended.remove(claim)

    def _is_hung(self, working: Working) -> bool:
        """Lets go of a task whose call has not come back long after it had to: it gets another worker."""
        if working.run.is_hung and not working.task.cancelling():
            log.error("await_hangs", task_id=working.run.task_id)
            working.task.cancel()
        return working.run.is_hung

    def _suspend(self) -> None:
        """Stops all work, since the leases may be over; what nobody took goes on when the store answers."""
        for working in self._working.values():
            if working.run.claim not in self._suspended:
                log.warning("lease_in_doubt", task_id=working.run.task_id)
                working.task.cancel()
                self._suspended.append(working.run.claim)

    async def _sweep(self) -> None:
        failing = Recurring()
        while True:  # at once: from its first sweep on, a store knows when it was restarted
            try:
                await self.pressure.measure()
                for partition in range(self._journal.store.partitions):
                    await self._tidy(partition)
                await self._backlog.measure()
            except MeshError as error:
                if failing.is_news():
                    log.warning("sweep_failed", error=error.message)
            else:
                if failing.is_over():
                    log.info("sweeps_again")
            await asyncio.sleep(SWEEP_S)

    async def _tidy(self, partition: int) -> None:
        swept = await self._journal.sweep(partition)
        if swept.taken:
            log.warning("workers_lost", tasks=swept.taken)
        for name in swept.idle:
            await self._or_lose(name, self.end_idle(name))
        for name, input_id in swept.lapsed:
            await self._or_lose(name, self._inbox.lapse(name, input_id))
        for name in swept.stranded:
            await self._or_lose(name, self._inbox.strand(name))
        await self._journal.purge(partition)
        await self._outbox.relay(partition)

    async def _or_lose(self, name: TaskName, act: Coroutine[Any, Any, None]) -> None:
        """Acts on a task that nobody runs; one that cannot be read ends, and keeps nobody from looking after others."""
        try:
            await act
        except (DataLossError, ContentKeyMissingError) as error:
            await self._lose(name, error)

    async def end_idle(self, name: TaskName) -> None:
        """Ends a task that nobody runs and that was cancelled, is out of time, or was given up."""
        record, account = await self._journal.record(name), Account()
        if record.sequence:
            async for entry in self._journal.replay(name):
                account.apply(entry.event(name.task_id))
        state, result = idle_result(record, account)
        if await self._journal.finish_idle(name, state, result):
            self._count_end(record.agent_id, state, result)
            if record.is_poison:
                telemetry.DEAD_LETTERS.labels(record.agent_id).inc()

    @staticmethod
    def _count_end(agent_id: str, state: str, result: StepEvent) -> None:
        why = FinishReason.Name(result.result.finish_reason)
        telemetry.TASKS_ENDED.labels(agent_id, state, why).inc()
        tell_end(result.result)

    async def drain(self, patience_s: float) -> None:
        """Takes no more tasks, lets running ones end in time, hands the rest back."""
        self._is_claiming = False
        self._wake.set()
        if self._claiming:  # not cancelled at once: a claim whose answer is under way would belong to nobody
            await asyncio.wait([self._claiming], timeout=LAST_WORDS_S)
            await ended(self._claiming)
        if self._working:
            await asyncio.wait([working.task for working in self._working.values()], timeout=patience_s)
        unfinished = list(self._working.values())
        await ended(*(working.task for working in unfinished))
        for claim in (*(working.run.claim for working in unfinished), *self._suspended):
            await self._hand_back(claim)
        if self._tasks:  # what has ended still passes on what it leaves behind
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_S)
        await ended(*self._chores)

    async def _hand_back(self, claim: Claim) -> None:
        task_id = claim.name.task_id
        try:
            await self._journal.release(claim)
        except MeshError as error:  # its lease runs out, and it is taken over
            log.warning("not_handed_back", task_id=task_id, error=error.message)
        else:
            log.info("handed_back", task_id=task_id)
