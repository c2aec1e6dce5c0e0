"""The worker: claims tasks of one agent, keeps their leases, sweeps after those who were lost."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import structlog

from meshwright.agents.feed import Feeds
from meshwright.agents.journal import Claim, Journal
from meshwright.agents.memory import Outbox
from meshwright.agents.result import idle_result
from meshwright.agents.run import Run
from meshwright.agents.runner import Runner
from meshwright.agents.task import Record, TaskName
from meshwright.core import telemetry
from meshwright.core.errors import FencedError, MeshError
from meshwright.core.grant import Signer

log = structlog.get_logger("worker")
POLL_S = 1.0
SWEEP_S = 1.0
LEASE_MARGIN_S = 2.0


@dataclass(slots=True)
class Working:
    """A run and the asyncio task that runs it."""

    run: Run
    task: asyncio.Task[None]


class Worker:
    """Runs tasks of one agent, at most `concurrency` at once.

    Args:
        agent_id: Whose tasks are claimed.
        journal: Where tasks live; its owner name is this worker's.
        feeds: Tells when to look for work, and when a running task is to stop.
        runner: Runs one task.
        outbox: Relayed after every end and on every sweep.
        signer: Signs the grants of running tasks.
        concurrency: Tasks at once; waiting ones cost nothing.
        is_claiming: Whether queued tasks are taken; a pure server runs none.
    """

    def __init__(
        self,
        agent_id: str,
        journal: Journal,
        feeds: Feeds,
        runner: Runner,
        outbox: Outbox,
        signer: Signer,
        *,
        concurrency: int,
        is_claiming: bool = True,
    ) -> None:
        self.agent_id = agent_id
        self.runner = runner
        self._journal = journal
        self._feeds = feeds
        self._outbox = outbox
        self._signer = signer
        self._concurrency = concurrency
        self._is_claiming = is_claiming
        self._working: dict[str, Working] = {}
        self._wake = asyncio.Event()
        self._beaten = time.monotonic()
        self._loops: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        """Tasks being run."""
        return len(self._working)

    @property
    def has_room(self) -> bool:
        """Whether one more task may be run here at once."""
        return self._is_claiming and len(self._working) < self._concurrency

    def start(self) -> None:
        """Starts to claim, beat and sweep."""
        chores = [self._beat(), self._sweep()] + ([self._claim()] if self._is_claiming else [])
        self._loops = [asyncio.create_task(chore) for chore in chores]

    def wake(self, _ref: str = "") -> None:
        """Looks for ready tasks now."""
        self._wake.set()

    def interrupt(self, ref: str) -> None:
        """Stops a running task that was cancelled."""
        working = self._working.get(ref)
        if working and not working.run.stop_reason:
            working.run.stop_reason = "the task was cancelled"
            working.task.cancel()

    def launch(self, claim: Claim, record: Record) -> Run:
        """Starts to work on a task that this process owns."""
        run = Run(claim, record, self._journal, self._feeds, self._signer)
        task = asyncio.create_task(self._work(run))
        self._working[claim.name.ref] = Working(run, task)
        telemetry.TASKS_RUNNING.labels(self.agent_id).set(self.running)
        return run

    async def _work(self, run: Run) -> None:
        name = run.record.name
        try:
            await self.runner.run(run)
        except MeshError as error:
            log.warning("run_lost", task_id=run.task_id, error=error.message)
        finally:
            self._working.pop(name.ref, None)
            telemetry.TASKS_RUNNING.labels(self.agent_id).set(self.running)
            self._wake.set()
            with contextlib.suppress(MeshError):
                await self._feeds.give_up(name)
                await self._outbox.relay(name.partition(self._journal.store.partitions))

    async def _claim(self) -> None:
        while True:
            try:
                while self.has_room and await self._claim_one():
                    pass
            except MeshError as error:
                log.warning("claim_failed", error=error.message)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def _claim_one(self) -> bool:
        has_claimed = False
        for partition in range(self._journal.store.partitions):
            if not self.has_room:
                break
            claim = await self._journal.claim(partition, self.agent_id)
            if claim:
                self.launch(claim, await self._journal.record(claim.name))
                has_claimed = True
        return has_claimed

    async def _beat(self) -> None:
        lease_s = self._journal.lease_ms / 1000
        while True:
            await asyncio.sleep(lease_s / 3)
            try:
                lost = await self._journal.beat([working.run.claim for working in self._working.values()])
            except MeshError as error:
                log.warning("beat_failed", error=error.message)
                if time.monotonic() - self._beaten > lease_s - LEASE_MARGIN_S:
                    self._lose(set(self._working))
            else:
                self._beaten = time.monotonic()
                self._lose(lost & set(self._working))

    def _lose(self, refs: set[str]) -> None:
        for ref in refs:
            log.warning("lease_lost", task_id=self._working[ref].run.task_id)
            self._working[ref].task.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for partition in range(self._journal.store.partitions):
                try:
                    await self._tidy(partition)
                except MeshError as error:
                    log.warning("sweep_failed", error=error.message)

    async def _tidy(self, partition: int) -> None:
        taken, idle = await self._journal.sweep(partition)
        if taken:
            log.warning("workers_lost", tasks=taken)
        for name in idle:
            await self.end_idle(name)
        await self._journal.purge(partition)
        await self._outbox.relay(partition)

    async def end_idle(self, name: TaskName) -> None:
        """Ends a task that nobody runs and that was cancelled or is out of time."""
        state, result = idle_result(await self._journal.record(name))
        await self._journal.finish_idle(name, state, result)

    async def drain(self, patience_s: float) -> None:
        """Takes no more tasks, lets running ones end in time, hands the rest back."""
        self._is_claiming = False
        for loop in self._loops[2:]:
            loop.cancel()
        if self._working:
            await asyncio.wait([working.task for working in self._working.values()], timeout=patience_s)
        for working in list(self._working.values()):
            working.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, MeshError):
                await working.task
            with contextlib.suppress(FencedError, MeshError):
                await self._journal.release(working.run.claim)
        for loop in self._loops:
            loop.cancel()
