"""How an agent gives answers from before."""

from dataclasses import dataclass
from typing import Literal, get_args

from meshwright.core.errors import SetupError

CacheMode = Literal["off", "exact", "semantic"]
CacheScope = Literal["principal", "tenant"]
LONGEST_S = 30 * 86_400
LEAST_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Caching:
    """An agent's policy.

    Attributes:
        mode: `off`; `exact`: for the same question; `semantic`: for one that is alike, too.
        for_s: Seconds for which an answer is given again.
        threshold: How similar a question has to be, as a cosine.
        scope: Who is given an answer again.
    """

    mode: CacheMode = "off"
    for_s: float = 3_600
    threshold: float = 0.95
    scope: CacheScope = "principal"

    def check(self, agent: str) -> None:
        """Holds the policy against its bounds.

        Raises:
            SetupError: One line that says what is wrong.
        """
        for name, value, known in (("cache", self.mode, CacheMode), ("cache_scope", self.scope, CacheScope)):
            if value not in get_args(known):
                raise SetupError(f"agent {agent}: {name} is {' or '.join(get_args(known))}, not {value!r}")
        if not 1 <= self.for_s <= LONGEST_S:
            raise SetupError(f"agent {agent}: cache_for_s must be 1..{LONGEST_S} (30 days)")
        if not LEAST_THRESHOLD <= self.threshold <= 1:
            raise SetupError(f"agent {agent}: cache_threshold must be {LEAST_THRESHOLD}..1")
