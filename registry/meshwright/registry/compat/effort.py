"""How much a comparison may think: counted, not timed, so that it ends alike on every machine. Pure."""

MAX_STEPS = 3_000
"""Of one question, "does this schema accept all that the other accepts?"; some 10 µs each."""


class ExhaustedError(Exception):
    """The steps are used up; whoever asked takes the question as undecided."""


class Effort:
    """Steps that are left for one question.

    Args:
        steps: How many there are.
    """

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self._left = float(steps)

    def spend(self, steps: float = 1) -> None:
        """Takes steps away.

        Raises:
            ExhaustedError: There are not so many left.
        """
        self._left -= steps
        if self._left < 0:
            raise ExhaustedError
