"""A run: one claimed task in this process, its state, and the one way to write to its journal."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.agents.budget import NEAR, Budget, notices
from meshwright.agents.context import History
from meshwright.agents.feed import Feeds
from meshwright.agents.journal import Claim, Journal
from meshwright.agents.models.routing import Wish
from meshwright.agents.question import Question
from meshwright.agents.reply import Appended, Short
from meshwright.agents.state import RunState
from meshwright.agents.task import Record, stamp
from meshwright.agents.toolbox import Pin
from meshwright.agents.typed import ResultType
from meshwright.core.errors import MeshError, TaskCancelledError
from meshwright.core.grant import MAX_AGE_S, Signer
from meshwright.core.tracing import Attempt
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice, StepEvent
from meshwright.gen.agents.v1.task_pb2 import BUDGET_ACTION_DEGRADE, EmbeddingUsage, TaskRequest
from meshwright.gen.tools.v1.tool_service_pb2 import Outcome

RETRY_S = 0.2
HUNG_AFTER_S = 10.0
"""How much later than it had to something may come back."""
P = ParamSpec("P")
T = TypeVar("T")


class Awaiting:
    """Something that is awaited, and when it has to have come back, on the monotonic clock."""

    __slots__ = ("_all", "ends")

    def __init__(self, all_awaited: "set[Awaiting]", ends: float) -> None:
        self._all = all_awaited
        self.ends = ends

    def __enter__(self) -> None:
        """Notes it."""
        self._all.add(self)

    def __exit__(self, *_: object) -> None:
        """It has come back."""
        self._all.discard(self)


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant, what of it changes in a run's life (approvals, taint, tokens, money), and since when it stands."""

    grant: Grant
    varying: tuple[list[str], bool, int, int]
    since: float


@dataclass(slots=True)
class Run:
    """A task while this process owns it.

    Attributes:
        claim: The ownership; every write is held against it.
        record: The task as it was when claimed.
        journal: Where it is written.
        feeds: Who watches it here.
        signer: Signs its grant.
        state: What its journal adds up to.
        tools: Pinned tools by name.
        delegates: Agents that it may hand work to.
        history: What it knows of its session.
        result_type: What its result has to be; None: text.
        question: What its answer is kept under; None: it is not.
        embedding: What embedding the question has taken, until it is journaled.
        recalled: An answer to the same from before, too old to be given while a model answers.
        deadline: When its time is over, on the monotonic clock.
        ahead: By call id, calls that were begun before they are journaled, since they leave no trace.
        submitted: Children that this process has submitted.
        stop_reason: Why it is being cancelled; empty while nobody wants that.
        span_id: Of its span, 16 hex digits; empty: not traced.
        before: The attempt before; its span is empty while no event names one. None: there is none.
        is_ending: Its end is being written: too late to cancel it.
        has_ended: This process wrote its end.
    """

    claim: Claim
    record: Record
    journal: Journal
    feeds: Feeds
    signer: Signer
    state: RunState = field(default_factory=RunState)
    tools: dict[str, Pin] = field(default_factory=dict)
    delegates: Sequence[str] = ()
    history: History = field(default_factory=History)
    result_type: ResultType | None = None
    question: Question | None = None
    embedding: EmbeddingUsage = field(default_factory=EmbeddingUsage)
    recalled: str = ""
    deadline: float = 0.0
    ahead: dict[str, asyncio.Task[Outcome]] = field(default_factory=dict)
    submitted: set[str] = field(default_factory=set)
    stop_reason: str = ""
    span_id: str = ""
    before: Attempt | None = None
    is_ending: bool = False
    has_ended: bool = False
    _budget: tuple[dict[str, int], Budget] | None = None
    _catching_up: asyncio.Lock = field(default_factory=asyncio.Lock)
    _grant: Granted | None = None
    _token: tuple[Grant, bytes] | None = None
    _awaits: set[Awaiting] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + (self.record.deadline - self.record.now) / 1000

    @property
    def request(self) -> TaskRequest:
        """What was asked, with defaults filled in."""
        return self.record.request

    @property
    def budget(self) -> Budget:
        """The task's limits, as far as people have raised them."""
        raised = self.state.raised
        if self._budget is None or self._budget[0] != raised:
            self._budget = (dict(raised), Budget.of(self.request, raised))
        return self._budget[1]

    @property
    def prompt(self) -> str:
        """The task's prompt as its model and people read it: what guardrails took out is not in it."""
        return self.state.prompt or self.request.prompt

    @property
    def time_used(self) -> float:
        """How much of the task's time is over, 0..1."""
        return 1 - min(1.0, self.seconds_left * 1000 / max(1, self.request.timeout.ToMilliseconds()))

    @property
    def wish(self) -> Wish:
        """What its models are chosen by beside the prompt: near the end of a budget cheap ones, if that was asked."""
        spent, request = self.budget.spent(self.state), self.record.request
        is_cheap = spent >= NEAR and request.on_budget_exceeded == BUDGET_ACTION_DEGRADE
        return Wish("fast" if is_cheap else request.model, self.record.name.tenant, max(0.0, 1 - spent))

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.record.name.task_id

    @property
    def seconds_left(self) -> float:
        """Time until the task times out."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def store_ms(self) -> int:
        """The store's time, as far as it can be told from here."""
        return self.record.deadline - int((self.deadline - time.monotonic()) * 1000)

    @property
    def is_tainted(self) -> bool:
        """Whether content that others wrote has entered the conversation, earlier turns included."""
        return self.state.is_tainted or bool(self.history)

    @property
    def is_hung(self) -> bool:
        """Whether something has not come back long after it had to: this process is not to be trusted with the task."""
        return any(time.monotonic() > awaited.ends + HUNG_AFTER_S for awaited in self._awaits)

    def awaiting(self, limit_s: float) -> Awaiting:
        """Notes, while it is entered, that something is awaited that bounds itself by `limit_s`."""
        return Awaiting(self._awaits, time.monotonic() + limit_s)

    def event(self, step: int = 0, **kind: Any) -> StepEvent:
        """Makes an event of this run; the store adds number and time."""
        return StepEvent(step=step or self.state.step, attempt=self.record.attempt, span_id=self.span_id, **kind)

    def token(self) -> bytes:
        """Returns the grant's signed reference, which only calls that leave this process need."""
        grant = self.grant()
        if self._token is None or self._token[0] is not grant:
            self._token = (grant, self.signer.sign(grant))
        return self._token[1]

    def grant(self) -> Grant:
        """Returns the authority under which this run acts, renewed at half of its age and when it has changed."""
        limits = self.budget
        varying = (self.state.approvals, self.state.was_tainted or bool(self.history), limits.tokens, limits.micros)
        kept = self._grant
        if kept is None or kept.varying != varying or time.monotonic() - kept.since > MAX_AGE_S / 2:
            approved, tainted, tokens, micros = varying
            name = self.record.name
            grant = Grant(
                tenant=name.tenant,
                principal=name.principal,
                agent_id=self.record.agent_id,
                task_id=name.task_id,
                root_task_id=self.record.root_id or name.task_id,
                depth=self.record.depth,
                fence=int(self.claim.fence.partition("-")[0]),
                tools=[pin.id for pin in self.tools.values()],
                token_budget=tokens,
                cost_budget_micros=micros,
                max_tool_calls=limits.tool_calls,
                tainted=tainted,
                approved=approved,
                allowed_tools=self.request.allowed_tools,
                delegates=self.delegates,
                scopes=self.record.scopes,
                session_id=self.record.session_id,
                ancestors=self.record.ancestors,
            )
            grant.deadline.FromMilliseconds(self.record.deadline)
            self._grant = kept = Granted(grant, varying, time.monotonic())
        return kept.grant

    def drop_ahead(self, *call_ids: str) -> None:
        """Breaks off calls that nobody waits for any more; none named: all of them."""
        for call_id in call_ids or tuple(self.ahead):
            if work := self.ahead.pop(call_id, None):
                work.add_done_callback(lambda work: work.cancelled() or work.exception())  # looked at: no complaint
                work.cancel()

    def begun_with(self, events: Sequence[StepEvent], time_ms: int) -> None:
        """Folds the events that were written when the task was accepted."""
        self._show(events, 1, time_ms)
        for event in events:
            self.state.apply(event)

    async def append(self, key: str, *events: StepEvent, is_progress: bool = True) -> None:
        """Journals events under a key, shows them to watchers here and folds them into the state.

        Raises:
            FencedError: Another process owns the task.
            TaskCancelledError: Somebody asked the task to stop.
        """
        appended = await persistently(self.journal.append, self.claim, key, events, is_progress=is_progress)
        await self._written(appended, events)
        if appended.cancel:
            raise TaskCancelledError(appended.cancel)

    async def spend(self, key: str, *events: StepEvent, escrow: str, is_progress: bool = True) -> Short | None:
        """Journals events that take money as `append` does; returns what it lacks, where nothing was written."""
        spent = await persistently(self.journal.spend, self.claim, key, events, escrow, is_progress=is_progress)
        if isinstance(spent, Short):
            return spent
        await self._written(spent, events)
        if spent.cancel:
            raise TaskCancelledError(spent.cancel)
        return None

    def budget_notices(self, *, tokens: int = 0, micros: int = 0, steps: int = 0) -> list[StepEvent]:
        """Returns what watchers have not been told of budgets, a further answer included that is not journaled yet."""
        used = self.budget.used(self.state, self.time_used, tokens=tokens, micros=micros, steps=steps)
        if max(used.values()) < NEAR:
            return []
        return [self.event(budget=notice) for notice in notices(self.state, used)]

    async def notice(self, key: str, notice: RunnerNotice) -> None:
        """Journals what the machinery did; that alone is no progress."""
        await self.append(key, self.event(notice=notice), is_progress=False)

    async def finish(self, state: str, *events: StepEvent) -> None:
        """Ends the task; the last event is its result.

        Raises:
            FencedError: Another process owns the task, or ended it first.
        """
        self.is_ending = True
        appended = await persistently(self.journal.finish, self.claim, state, events)
        self.has_ended = True
        self._show(events, appended.first, appended.time_ms)

    def _show(self, events: Sequence[StepEvent], first: int, time_ms: int) -> None:
        """Adds what the store said to events that were written, and hands them to the watchers here."""
        at = Timestamp()
        at.FromMilliseconds(time_ms)
        for offset, event in enumerate(events):
            stamp(event, self.task_id, first + offset, at)
        self.feeds.show(self.record.name, events)

    async def _written(self, appended: Appended, events: Sequence[StepEvent]) -> None:
        """Folds what this run wrote; events of others that came between are read first."""
        self._show(events, appended.first, appended.time_ms)
        for event in events:
            if event.sequence == self.state.sequence + 1:
                self.state.apply(event)
        if appended.first + len(events) - 1 > self.state.sequence:
            await self.catch_up()

    async def catch_up(self) -> None:
        """Reads and folds what others, such as children, have written."""
        async with self._catching_up:
            await persistently(self._fold)

    async def _fold(self) -> None:
        async for entry in self.journal.replay(self.record.name, self.state.sequence):
            if entry.sequence == self.state.sequence + 1:
                event = entry.event(self.task_id)
                self.state.apply(event)
                self.before = attempt_of(event, self.before) if event.span_id != self.span_id else self.before


def attempt_of(event: StepEvent, known: Attempt | None) -> Attempt | None:
    """Returns the attempt that wrote an event, as far as the journal tells.

    Args:
        event: The next one of the journal, not of this run.
        known: The attempt that wrote before. A task's first event may be written before there is a span: until one is
            named, the attempt has an empty one.
    """
    if not event.span_id and not event.HasField("started"):
        return known
    now = event.time.ToMilliseconds()
    is_known = known and known.number == event.attempt and known.span_id in ("", event.span_id)
    return Attempt(event.span_id, event.attempt, known.start_ms if known and is_known else now, now)


async def persistently(act: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Repeats what may be repeated until store and mesh answer; who loses the lease is cancelled from outside."""
    while True:
        try:
            return await act(*args, **kwargs)
        except MeshError as error:
            if not error.is_retryable:
                raise
            await asyncio.sleep(RETRY_S)
