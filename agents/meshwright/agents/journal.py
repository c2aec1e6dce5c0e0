"""The journal: every write of a task is one of the store's `functions`, every read comes from here."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshwright.agents.reader import Reader, parse_ref
from meshwright.agents.reply import Appended, Beaten, Short, Swept
from meshwright.agents.sealing import request_of, sealed
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import NewTask, TaskName, counted
from meshwright.core.audit import line_of
from meshwright.core.bound import LIMIT, Bound
from meshwright.core.errors import (
    DigestMismatchError,
    FencedError,
    GrantInvalidError,
    InputNotPendingError,
    QueueFullError,
    ResultTooLargeError,
    TaskCancelledError,
    TaskConflictError,
    TaskExpiredError,
)
from meshwright.core.store import Library, Store, partition_key, segment
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import Decision

FUNCTIONS = Path(__file__).with_name("functions")
PARTS = (
    *("record", "budget", "webhook", "inputs", "queue", "journal", "upkeep", "session", "memory", "answers"),
    "define",
)
LIBRARY = Library("journal", "\n".join((FUNCTIONS / f"{part}.lua").read_text() for part in PARTS))
RETENTION_MS = 7 * 86_400_000
TOMBSTONE_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What an agent's queue takes and gives, in each partition; 0 tasks at once: no limit.

    Attributes:
        max_ready: Tasks that may wait before new roots are refused.
        tenant_max_ready: The same for one tenant.
        tenant_concurrency: Tasks of one tenant that are run at once, by all workers together.
        weights: Shares of tenants where several wait; 1 for those not named.
    """

    max_ready: int = 10_000
    tenant_max_ready: int = 10_000
    tenant_concurrency: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Claim:
    """A task that this process owns until it is fenced; a suspect has taken a worker down before, and runs alone."""

    name: TaskName
    fence: str
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What a queue has for a worker: a task, or the wish that it ends what it runs and comes again, or nothing."""

    claim: Claim | None = None
    should_isolate: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: `claim` where this process is to work on it, `time_ms` of a task that is new.

    `shared`: Budgets that a new one shares with other trees, a child those of its parent.
    """

    is_new: bool
    claim: Claim | None = None
    time_ms: int = 0
    shared: SharedLimits = field(default_factory=SharedLimits)


class Journal(Reader):
    """Writes tasks, and reads them.

    Args:
        store: An open store that holds `LIBRARY`.
        owner: Name of this process in ownership records.
        lease_s: How long a claim lives without a beat.
        limits: Bounds and shares of the queues.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        *,
        lease_s: float = 15.0,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(store)
        self.owner = owner
        self.lease_ms = int(lease_s * 1000)
        self._limits = limits or Limits()
        self._weights = " ".join(f"{segment(name)} {weight:g}" for name, weight in self._limits.weights.items())

    async def _call(self, function: str, partition: int, *arguments: str | int | bytes) -> Any:
        slot = partition_key(partition, "task", "-")
        return await self.store.call(LIBRARY.function(function), slot, partition, *arguments)

    async def accept(
        self, task: NewTask, *, claim: bool, events: Sequence[StepEvent] = (), version: str = ""
    ) -> Accepted:
        """Accepts a task, once.

        Args:
            task: What is asked.
            claim: Own it at once instead of queueing it, unless others wait before it.
            events: First entries of a journal that is claimed.
            version: Of the agent, where a task that is claimed stays with it.

        Returns:
            Whether the task is new, and the claim, if there is one; a known task with the same request is attached to.

        Raises:
            TaskConflictError: The id is taken by another request.
            TaskExpiredError: The id was used and deleted not long ago.
            QueueFullError: Too many tasks wait.
            TaskCancelledError: The parent has ended or is being cancelled.
            GrantInvalidError: It is to have scopes that its parent does not have.
        """
        partition, ref = self._place(task.name)
        seal = await self.sealing.of(task.name) if task.parent_id else self.sealing.fresh(task.name)
        payloads = sealed(seal, task.name, events)
        request = seal.encrypt(request_of(task.name), task.request.SerializeToString())
        owner, nonce = (self.owner, secrets.token_hex(8)) if claim else ("", "")
        limits = self._limits
        # fmt: off
        function = "adopt" if task.parent_id else "accept"
        reply = await self._call(
            function, partition, ref, task.name.task_id, task.agent_id, task.hash, request,
            task.timeout_ms, RETENTION_MS, task.parent_id, task.root_id, task.depth, task.call_id, task.trace,
            task.rank, task.session_id, limits.max_ready, limits.tenant_max_ready, owner, nonce, self.lease_ms,
            limits.tenant_concurrency, version, json.dumps(task.scopes), " ".join(task.ancestors),
            task.request.cost_budget_micros, str(task.shared), b"" if task.parent_id else seal.wrapped,
            line_of(task.name.principal, agent=task.agent_id, parent=task.parent_id, session=task.session_id),
            len(payloads), *payloads,
        )
        # fmt: on
        match reply[0]:
            case b"new":
                self.sealing.keep(seal)
                claimed = Claim(task.name, reply[1].decode()) if reply[1] else None
                return Accepted(True, claimed, reply[2], SharedLimits.parse(reply[3].decode()))
            case b"known" if reply[1]:
                return Accepted(False)
            case b"known":
                raise conflict(task.name)
            case b"expired":
                raise TaskExpiredError(f"task {task.name.task_id} has been deleted: choose another task_id")
            case b"full":
                raise queue_full(f"too many tasks wait for {task.agent_id}", Bound.AGENT)
            case b"wider":
                raise GrantInvalidError(
                    "the grant holds other scopes than the parent task: they are handed on as they are"
                )
            case b"tenant full":
                raise queue_full(f"too many tasks of yours wait for {task.agent_id}", Bound.TENANT)
        raise TaskCancelledError("the parent task has ended: nothing is started for it any more")

    async def claim(
        self, partition: int, agent_id: str, *, version: str = "", is_pinning: bool = False, is_idle: bool = True
    ) -> Offer:
        """Takes the task whose turn it is, if there is one.

        Args:
            partition: Where to look.
            agent_id: Whose tasks.
            version: The agent's version here.
            is_pinning: Whether tasks stay with this version from their first claim on.
            is_idle: Whether the worker runs nothing, so that it may take a suspect.
        """
        limits = self._limits
        # fmt: off
        reply = await self._call(
            "claim", partition, agent_id, version, int(is_pinning), self.owner, secrets.token_hex(8), self.lease_ms,
            limits.tenant_concurrency, self._weights, int(is_idle),
        )
        # fmt: on
        if len(reply) < 2:  # noqa: PLR2004 - a wish has one part
            return Offer(should_isolate=bool(reply))
        return Offer(Claim(parse_ref(reply[0].decode()), reply[1].decode(), is_suspect=reply[2] > 0))

    async def append(
        self,
        claim: Claim,
        key: str,
        events: Sequence[StepEvent],
        *,
        is_progress: bool = True,
    ) -> Appended:
        """Writes events under the claim's fence; the same key again writes nothing and answers the same.

        Raises:
            FencedError: Somebody else owns the task, or it has ended.
            ResultTooLargeError: The journal is full.
        """
        appended = await self._append(claim, key, events, "-", is_progress=is_progress)
        assert isinstance(appended, Appended)
        return appended

    async def spend(
        self, claim: Claim, key: str, events: Sequence[StepEvent], escrow: str, *, is_progress: bool
    ) -> Appended | Short:
        """Writes events as `append` does where there is money for what they cost and set aside.

        Args:
            claim: As there.
            key: As there.
            events: As there.
            escrow: `CHUNK MICROS` that the tree has taken from the budgets that it shares, `0 0` before it has; empty:
                it shares none.
            is_progress: As there.
        """
        return await self._append(claim, key, events, escrow, is_progress=is_progress)

    async def _append(
        self, claim: Claim, key: str, events: Sequence[StepEvent], escrow: str, *, is_progress: bool
    ) -> Appended | Short:
        partition, ref = self._place(claim.name)
        payloads, asked = (
            await self.sealing.events(claim.name, events),
            await self.sealing.questions(claim.name, events),
        )
        facts = (ref, claim.fence, key, int(is_progress), spelled(events), escrow)
        reply = await self._call("append", partition, *facts, len(payloads), *payloads, *asked)
        if reply[0] == b"short":
            return Short(left=reply[1])
        if reply[0] == b"chunk":
            return Short(chunk=reply[1], missing=reply[2])
        if reply[0] == b"fenced":
            raise FencedError(f"task {claim.name.task_id} is owned by another process now")
        if reply[0] == b"full":
            message = "a journal holds 10,000 events, each of 4 MiB, large ones of 32 MiB together: narrow the task"
            raise ResultTooLargeError(message)
        return Appended(reply[0], reply[1], (await self.sealing.opened_reason(claim.name, reply[2])).decode())

    async def park(
        self,
        claim: Claim,
        last_sequence: int,
        event: StepEvent,
        *,
        children: int = 0,
        is_turn: bool = False,
        is_held: bool = False,
        is_eager: bool = False,
    ) -> bool:
        """Gives the task up until somebody wakes it; False: something has happened since `last_sequence`.

        Args:
            claim: The ownership that ends.
            last_sequence: Of the journal as the runner knows it.
            event: Says so in the journal.
            children: That have not ended; the last one's end wakes the task.
            is_turn: It waits for its turn in its session.
            is_held: It waits for a person, and its clock stands still.
            is_eager: A child's failure wakes it, too.

        Raises:
            FencedError: Somebody else owns the task.
        """
        partition, ref = self._place(claim.name)
        facts = [last_sequence, children, int(is_turn), int(is_held), int(is_eager)]
        payloads = await self.sealing.events(claim.name, [event])
        reply = await self._call("park", partition, ref, claim.fence, *facts, *payloads)
        if reply == b"fenced":
            raise FencedError(f"task {claim.name.task_id} is owned by another process now")
        return bool(reply == b"parked")

    async def nudge(self, name: TaskName) -> None:
        """Tells a task that its turn in its session may have come."""
        partition, ref = self._place(name)
        await self._call("nudge", partition, ref)

    async def resolve(
        self, shown: TaskName, input_id: str, digest: str, event: StepEvent, *, is_unpinning: bool = False
    ) -> None:
        """Writes the decision on a question, and wakes the task that asked.

        Args:
            shown: A task that shows the question: the one that asked, or one above it.
            input_id: Which.
            digest: What the decision is about.
            event: The decision.
            is_unpinning: From now on workers of any version may take the task.

        Raises:
            InputNotPendingError: It was decided already, or never asked.
            DigestMismatchError: It is about another call.
        """
        partition, ref = self._place(shown)
        decided = event.input_resolved
        word = Decision.Name(decided.decision).removeprefix("DECISION_").lower()
        line = line_of(decided.decided_by, word, input=input_id, intent=digest, via=shown.task_id)
        payload, budget = await self.sealing.decision(shown, input_id, event), decided.cost_budget_micros
        reply = await self._call("resolve", partition, ref, input_id, digest, int(is_unpinning), payload, budget, line)
        if reply == b"gone":
            raise InputNotPendingError(f"{input_id} waits for no decision: it was decided, has lapsed or was withdrawn")
        if reply == b"differs":
            raise DigestMismatchError(
                "intent_digest is not that of the pending input: read it again and decide on that"
            )

    async def strand(self, name: TaskName, event: StepEvent) -> bool:
        """Asks a person about a task whose version of workers does not come; False: one has come."""
        partition, ref = self._place(name)
        payloads, asked = await self.sealing.events(name, [event]), await self.sealing.questions(name, [event])
        return bool(await self._call("strand", partition, ref, *payloads, *asked))

    async def finish(
        self, claim: Claim, state: str, events: Sequence[StepEvent], *, is_plain: bool = False
    ) -> Appended:
        """Ends a task; the last event is its result. `is_plain`: its data key is lost, and nothing of its content told.

        Raises:
            FencedError: Somebody else owns the task, or it has ended: the first end wins.
        """
        partition, ref = self._place(claim.name)
        payloads = await self.sealing.events(claim.name, events, is_plain=is_plain)
        counters = spelled(events)
        reply = await self._call("finish", partition, ref, claim.fence, state, counters, len(payloads), *payloads)
        if reply[0] in (b"fenced", b"ended"):
            raise FencedError(f"task {claim.name.task_id} has ended or is owned by another process now")
        return Appended(reply[0], reply[1], "")

    async def finish_idle(self, name: TaskName, state: str, result: StepEvent, *, is_plain: bool = False) -> bool:
        """Ends a task that nobody runs, as `finish` does; False: somebody does, or it has ended."""
        partition, ref = self._place(name)
        payloads = await self.sealing.events(name, [result], is_plain=is_plain)
        return bool(await self._call("finish_idle", partition, ref, state, *payloads))

    async def cancel(self, name: TaskName, reason: str, by: str = "") -> list[TaskName]:
        """Asks a task and its descendants to stop; returns those that nobody runs, which the caller must end.

        Args:
            name: Which.
            reason: For people.
            by: The principal that wants it; empty: the mesh itself.
        """
        partition, ref = self._place(name)
        reply = await self._call("cancel", partition, ref, await self.sealing.reason(name, reason), line_of(by))
        return [parse_ref(idle.decode()) for idle in reply[1:]]

    async def pass_on(self, name: TaskName, frame: StepEvent) -> None:
        """Shows a frame that is not kept, such as a text delta, to the watchers of a task and of its ancestors."""
        partition, ref = self._place(name)
        await self._call("pass_on", partition, ref, await self.sealing.frame(name, frame))

    async def release(self, claim: Claim) -> None:
        """Hands a task back to the queue."""
        partition, ref = self._place(claim.name)
        await self._call("release", partition, ref, claim.fence)

    async def beat(self, claims: Sequence[Claim]) -> Beaten:
        """Renews leases."""
        lost: set[str] = set()
        cancelled: set[str] = set()
        placed: dict[int, list[str]] = {}
        for claim in claims:
            partition, ref = self._place(claim.name)
            placed.setdefault(partition, []).extend((ref, claim.fence))
        for partition, pairs in placed.items():
            reply = await self._call("beat", partition, self.lease_ms, *pairs)
            lost.update(ref.decode() for ref in reply[0])
            cancelled.update(ref.decode() for ref in reply[1])
        return Beaten(frozenset(lost), frozenset(cancelled))

    async def sweep(self, partition: int) -> Swept:
        """Re-queues tasks of lost workers; returns what else is to be done."""
        taken, idle, lapsed, stranded = await self._call("sweep", partition, self.lease_ms)
        return Swept(
            taken,
            [parse_ref(ref.decode()) for ref in idle],
            [(parse_ref(ref), input_id) for ref, _, input_id in (entry.decode().partition(" ") for entry in lapsed)],
            [parse_ref(ref.decode()) for ref in stranded],
        )

    async def outbox_done(self, partition: int, entry_id: bytes) -> None:
        """Removes an entry whose traces are written."""
        await self.store.run(("XDEL", partition_key(partition, "outbox"), entry_id))

    async def drop(self, name: TaskName, by: str, retried_as: str = "") -> None:
        """Takes a task off the list of those that were given up.

        Args:
            name: Which.
            by: The principal that wants it.
            retried_as: The task that was started in its place; empty: none.
        """
        partition, ref = self._place(name)
        event = "dead_letter_retried" if retried_as else "dead_letter_dropped"
        facts = {"retried_as": retried_as} if retried_as else {}
        await self._call("drop", partition, ref, event, line_of(by, **facts))

    async def note(self, partition: int, tenant: str, event: str, about: str, line: str) -> None:
        """Writes a line of the audit alone, of what no single function of the store does.

        Args:
            partition: Where the chain is.
            tenant: Whose it is.
            event: What is done.
            about: To what, spelled as in keys.
            line: As `line_of` makes it.
        """
        await self._call("note", partition, segment(tenant), event, about, line)

    async def purge(self, partition: int) -> int:
        """Deletes tasks whose retention is over; returns how many."""
        return int(await self._call("purge", partition, TOMBSTONE_MS, line_of("", "expired")))


def conflict(name: TaskName) -> TaskConflictError:
    """The refusal of a request whose id is taken."""
    return TaskConflictError(f"task {name.task_id} exists with another request: choose another task_id")


def queue_full(message: str, limit: Bound) -> QueueFullError:
    """The refusal of one more task that would wait."""
    return QueueFullError(f"{message}: try again later", metadata={LIMIT: limit}, retry_after_s=5)


def spelled(events: Sequence[StepEvent]) -> str:
    """Spells what events add to the counters as one argument."""
    return " ".join(f"{name} {value}" for name, value in counted(events).items())
