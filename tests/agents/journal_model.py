"""What must be true of tasks, whatever is done to their journal: the model that a journal is held against."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis.stateful import RuleBasedStateMachine

from meshwright.agents.journal import Claim
from meshwright.agents.task import NewTask, TaskName
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice, StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskResponse

ENDS = ("COMPLETED", "FAILED", "CANCELLED")
SUSPICIOUS = 2


@dataclass
class Question:
    """What is asked of a person."""

    origin: TaskName
    digest: str
    is_late: bool


@dataclass
class Known:
    """What must be true of a task."""

    task: NewTask
    is_overdue: bool
    is_brief: bool
    state: str = "PENDING"
    log: list[tuple[str, bytes]] = field(default_factory=list)
    claim: Claim | None = None
    stale: list[Claim] = field(default_factory=list)
    keys: dict[str, tuple[int, list[StepEvent]]] = field(default_factory=dict)
    is_lapsed: bool = False
    waiting: int = 0
    checked: int = 0
    is_turn: bool = False
    is_nudged: bool = False
    is_held: bool = False
    shown: dict[str, "Question"] = field(default_factory=dict)
    attempt: int = 0
    barren: int = 0
    is_suspect: bool = False
    is_poison: bool = False
    cancel: str = ""
    is_gone: bool = False
    is_in_outbox: bool = False

    @property
    def name(self) -> TaskName:
        return self.task.name

    @property
    def is_living(self) -> bool:
        return not self.is_gone and self.state not in ENDS

    def lose_claim(self, state: str) -> None:
        if self.claim:
            self.stale.append(self.claim)
        self.claim, self.is_lapsed, self.state = None, False, state

    @property
    def own_questions(self) -> dict[str, Question]:
        return {key: question for key, question in self.shown.items() if question.origin == self.name}

    def enter_queue(self) -> None:
        """One whose last worker was lost before it got anywhere waits apart, and runs alone."""
        self.lose_claim("PENDING")
        self.waiting, self.is_turn, self.is_held = 0, False, False
        self.is_suspect = self.barren >= SUSPICIOUS


def is_owned(known: Known) -> bool:
    return known.claim is not None


def is_repeatable(known: Known) -> bool:
    return known.claim is not None and bool(known.keys)


def is_overtaken(known: Known) -> bool:
    return bool(known.stale)


def is_ready(known: Known) -> bool:
    return known.state == "PENDING" and not known.is_gone and not known.is_poison


def is_in_line(known: Known) -> bool:
    return is_ready(known) and not known.is_suspect


def is_parked(known: Known) -> bool:
    return known.state == "PARKED"


def is_asking(known: Known) -> bool:
    return not known.is_gone and bool(known.shown)


def may_be_held(known: Known) -> bool:
    return is_owned(known) and bool(known.own_questions)


class JournalModel(RuleBasedStateMachine):
    """Tasks as they must be, and the laws by which one changes another."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Known] = {}
        self.serial = 0

    # What rules draw from.

    def picked(self, pick: int, wanted: Callable[[Known], bool]) -> Known | None:
        found = [known for known in self.tasks.values() if wanted(known)]
        return found[pick % len(found)] if found else None

    def running(self, pick: int) -> Known:
        known = self.picked(pick, is_owned)
        assert known
        return known

    def is_parent(self, known: Known) -> bool:
        """Whether a task runs and may wait for a child that lives."""
        return is_owned(known) and bool(self.children(known))

    def event(self, size: int = 0) -> StepEvent:
        self.serial += 1
        return StepEvent(notice=RunnerNotice(detail=f"e{self.serial}" + "." * size))

    def result(self) -> StepEvent:
        self.serial += 1
        return StepEvent(result=TaskResponse(output=f"r{self.serial}"))

    # The model's own laws.

    def above(self, known: Known) -> Known | None:
        parent = known.task.parent_id
        return self.tasks[known.name.sibling(parent).ref] if parent else None

    def lineage(self, known: Known) -> list[Known]:
        line = [known]
        while (parent := self.above(line[-1])) and parent.is_living:
            line.append(parent)
        return line

    def below(self, known: Known) -> Iterator[Known]:
        """Lists descendants that can be reached: a task that was deleted leads nowhere."""
        for child in self.tasks.values():
            if child.name.tenant == known.name.tenant and self.above(child) is known and not child.is_gone:
                yield child
                yield from self.below(child)

    def write(self, known: Known, events: list[StepEvent]) -> int:
        first = len(known.log) + 1
        for event in events:
            path, inner = "", None
            for here in self.lineage(known):
                if inner:
                    path = f"{inner.name.task_id}:{len(inner.log)}" + (f",{path}" if path else "")
                here.log.append((path, event.SerializeToString()))
                inner = here
        return first

    def flag(self, known: Known, reason: str, *, itself: bool) -> set[TaskName]:
        idle = set()
        for here in [*([known] if itself else []), *self.below(known)]:
            if here.is_living:
                here.cancel = here.cancel or reason
                idle |= {here.name} if here.state != "RUNNING" else set()
        return idle

    def conclude(self, known: Known, state: str) -> None:
        for key in list(known.shown):
            for here in self.lineage(known):
                here.shown.pop(key, None)
        known.lose_claim(state)
        known.is_held, known.is_turn = False, False
        known.is_in_outbox = bool(known.task.session_id)
        self.flag(known, "the parent task ended", itself=False)
        parent = self.above(known)
        if parent and not parent.is_gone and parent.state == "PARKED" and parent.waiting:
            parent.waiting -= 1
            if not parent.waiting:
                parent.enter_queue()

    def is_frozen(self, known: Known) -> bool:
        """Whether its clock stands still: it waits for a person, or a task below it does that still reports to it."""
        return any(known in self.lineage(here) for here in self.tasks.values() if here.is_held)

    def owned(self, known: Known, claim: Claim) -> None:
        assert claim.fence not in [old.fence for old in known.stale]
        assert claim.is_suspect == (known.barren >= SUSPICIOUS)
        known.claim, known.state, known.is_lapsed, known.is_nudged = claim, "RUNNING", False, False
        known.attempt = max(1, known.attempt)
        known.barren += 1

    def children(self, known: Known) -> list[Known]:
        return [child for child in self.below(known) if self.above(child) is known and child.is_living]
