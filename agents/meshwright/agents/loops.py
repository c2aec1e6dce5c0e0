"""Loops: a task that makes the same calls again and again, with the same outcomes, is told so, and then stopped."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshwright.core.errors import LoopDetectedError
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_LOOPING, RunnerNotice

TOLD_AFTER, ENDED_AFTER = 3, 5
"""Rounds in a row that brought nothing new, the first one included."""
TOLD = (
    f"The same calls have had the same outcomes {TOLD_AFTER} times in a row: do something else, or answer with what "
    "there is."
)


@dataclass(slots=True)
class Repeats:
    """How often calls were made in a row with the same outcome.

    Attributes:
        rounds: So many rounds in a row every call of the last one was made, with the outcome that it had there.
        is_told: Whether the model has read that.
    """

    rounds: int = 0
    is_told: bool = False
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, calls: Iterable[tuple[str, str]]) -> None:
        """Takes in a round: of each of its calls the digest of tool and arguments, and the outcome."""
        self._counts = {call: self._counts.get(call, 0) + 1 for call in calls}
        self.rounds = min(self._counts.values(), default=0)
        self.is_told = False

    def notice(self) -> RunnerNotice | None:
        """Returns what the model is to be told before it is asked again, if so.

        Raises:
            LoopDetectedError: It was told, and went on: it is not asked again.
        """
        if self.rounds >= ENDED_AFTER:
            raise LoopDetectedError(f"the same calls had the same outcomes {self.rounds} times in a row")
        if self.rounds != TOLD_AFTER or self.is_told:
            return None
        return RunnerNotice(kind=NOTICE_KIND_LOOPING, detail=TOLD)
