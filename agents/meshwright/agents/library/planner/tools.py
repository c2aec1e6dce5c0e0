"""The planner's tool: a goal taken apart into steps."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meshwright.agents import outline as outlines
from meshwright.agents.library.planner.policy import HELPERS
from meshwright.agents.outline import LONGEST_GOAL
from meshwright.registry import tool


@dataclass(frozen=True, slots=True)
class Helper:
    """An agent that may get a step."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,62}$", description="The agent's name")]
    good_at: Annotated[str, Field(min_length=1, max_length=1_000, description="What it does, in verbs")]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; `who` is empty where nobody fits, `after` lists the steps that must have ended before."""

    number: int
    action: str
    who: str
    after: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in order; those that wait for no common step may run at once."""

    steps: list[Step]


@tool(name="plan.outline", effect="pure")
def outline(
    goal: Annotated[str, Field(min_length=1, max_length=LONGEST_GOAL, description="What is to be reached")],
    agents: Annotated[
        tuple[Helper, ...], Field(max_length=50, description="Who may do a step; none: the agents that ship")
    ] = (),
) -> Plan:
    """Breaks a goal into numbered steps by its sentences and verbs, and says who does each and after what."""
    helpers = [outlines.Helper(one.name, one.good_at) for one in agents] or HELPERS
    return Plan([Step(one.number, one.action, one.who, list(one.after)) for one in outlines.outline(goal, helpers)])
