"""What the store's functions answer to a journal."""

from dataclasses import dataclass

from meshwright.agents.task import TaskName


@dataclass(frozen=True, slots=True)
class Appended:
    """Where events were written, when (store ms), and whether somebody wants the task to stop."""

    first: int
    time_ms: int
    cancel: str


@dataclass(frozen=True, slots=True)
class Short:
    """What keeps events that take money from being written; nothing was.

    Attributes:
        left: In the budget that has too little, the task's or one above it; None: a chunk is needed.
        chunk: Number of the chunk that the tree has to take from the budgets that it shares.
        missing: What it has to hold; all in millionths of a US dollar.
    """

    left: int | None = None
    chunk: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Beaten:
    """Refs of tasks that a beat found lost, and of those that somebody wants to stop."""

    lost: frozenset[str]
    cancelled: frozenset[str]


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        taken: Tasks taken from lost workers.
        idle: Tasks to end: cancelled, out of time, or given up.
        lapsed: Tasks and ids of their questions that nobody answered in time.
        stranded: Tasks that wait for workers of a version which does not come.
    """

    taken: int
    idle: list[TaskName]
    lapsed: list[tuple[TaskName, str]]
    stranded: list[TaskName]
