"""What an agent does when it cannot give what it should."""

from dataclasses import dataclass
from typing import Literal

OnOutage = Literal["fail", "degrade"]
SORRY = "I cannot answer at the moment: please ask again later."
MAX_TEXT = 10_000


@dataclass(frozen=True, slots=True)
class Outage:
    """An agent's policy.

    Attributes:
        is_degrading: Gives less instead of failing.
        text: What it says when no model answers.
    """

    is_degrading: bool = False
    text: str = SORRY
