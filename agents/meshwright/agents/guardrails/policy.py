"""The ordered list of guardrails that an agent declares. Pure."""

import re
from collections.abc import Sequence

from meshwright.agents.guardrails.content import ContentPolicy
from meshwright.agents.guardrails.effects import Effects
from meshwright.agents.guardrails.guardrail import POINTS, Guardrail
from meshwright.agents.guardrails.injection import Injection
from meshwright.agents.guardrails.leakage import Leakage
from meshwright.agents.guardrails.pii import Pii
from meshwright.agents.guardrails.secrets import Secrets
from meshwright.agents.guardrails.size import Size
from meshwright.core.errors import SetupError

DEFAULT: tuple[Guardrail, ...] = (
    Size(),
    Injection(),
    ContentPolicy(),
    Pii(),
    Secrets(),
    Leakage(),
    Effects(),
)
"""What an agent has that declares none: rules without a model, a millisecond for four pages."""
MAX_GUARDRAILS = 32
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


def check_guardrails(agent: str, guardrails: Sequence[Guardrail]) -> None:
    """Holds a list against what a journal can say of it.

    Raises:
        SetupError: There are too many, a name is malformed or given twice, or a point is none.
    """
    if len(guardrails) > MAX_GUARDRAILS:
        raise SetupError(f"agent {agent}: {len(guardrails)} guardrails, at most {MAX_GUARDRAILS} are taken")
    seen = set[str]()
    for one in guardrails:
        name, points = getattr(one, "name", ""), getattr(one, "points", ())
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not callable(getattr(one, "check", None)):
            raise SetupError(
                f"agent {agent}: {one!r} is no guardrail: it needs name ({_NAME.pattern}), points and check"
            )
        if name in seen:
            raise SetupError(f"agent {agent}: two guardrails are called {name}: give one another name=")
        if wrong := [point for point in points if point not in POINTS]:
            raise SetupError(f"agent {agent}: guardrail {name} stands at {wrong[0]!r}: points are {', '.join(POINTS)}")
        seen.add(name)
