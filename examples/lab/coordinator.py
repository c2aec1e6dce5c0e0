"""The lab's coordinator: has a goal planned, the plan reviewed, and keeps both, once.

The order of the work is code. What a plan and a review are made of is up to the two agents that are asked.
"""

import json
from dataclasses import dataclass

from meshwright.agents import Agent
from meshwright.agents.guardrails import DEFAULT
from meshwright.agents.memory import MOST_FACT_CHARS
from meshwright.agents.models.model import Answer, Call, JsonObject, OnText, Prompt, Usage
from meshwright.agents.models.rules.situation import Outcome, Situation, situation_of
from meshwright.agents.shortening import shortened

PLAN, REVIEW, KEEP = "ask.planner", "ask.reviewer", "memory.remember"
PART_CHARS = MOST_FACT_CHARS // 3 - 10
"""Of goal, plan and review, in what is pinned; the task itself has all of them."""
TEXT = {"type": "string"}
RESULT = {
    "type": "object",
    "properties": {
        "goal": TEXT,
        "plan": TEXT,
        "review": TEXT,
        "memory_id": {**TEXT, "description": "Under which the result is kept; empty: it is not"},
        "missing": {"type": "array", "items": TEXT, "description": "What the result lacks, and why"},
    },
    "required": ["goal", "plan", "review", "memory_id", "missing"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class InTurn:
    """A model that calls one tool after the other and answers with what they brought; it asks nobody and costs nothing.

    Attributes:
        provider: Prices know it as free.
        name: In the journal.
    """

    provider: str = "offline"
    name: str = "in-turn"

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Decides on the next call by what has come back so far, as a worker that takes the task over would."""
        situation = situation_of(prompt)
        for tool, arguments in wanted(situation).items():
            if situation.tool(tool) and not situation.outcomes_of(tool):
                call = Call(f"call_{prompt.turn}", tool, arguments)
                return Answer("", (call,), Usage(), self.provider, self.name, "tool_calls")
        text = json.dumps(result(situation), ensure_ascii=False)
        on_text(text)
        return Answer(text, (), Usage(), self.provider, self.name)

    async def close(self) -> None:
        """Holds nothing open."""


def wanted(situation: Situation) -> dict[str, JsonObject]:
    """Returns the calls that there are to be, in their order; each is made of what those before it brought."""
    goal, plan = situation.task, brought(situation, PLAN)
    steps = "\n".join(line.rpartition(" - ")[0] or line for line in plan.splitlines())
    parts = {"Goal": goal, "Plan": plan, "Review": brought(situation, REVIEW)}
    fact = "\n\n".join(f"{name}: {shortened(text, PART_CHARS)}" for name, text in parts.items())
    return {
        PLAN: {"prompt": goal},
        REVIEW: {"prompt": f"Review these claims:\n{steps}\n\nsource: goal\n{goal}"},
        KEEP: {"fact": fact, "pin": True},
    }


def brought(situation: Situation, tool: str) -> str:
    """Returns what an agent answered; empty: it did not."""
    return "".join(outcome.text for outcome in situation.outcomes_of(tool) if not outcome.error)


def result(situation: Situation) -> JsonObject:
    """Puts together what there is, and says what there is not."""
    kept = [outcome.value for outcome in situation.outcomes_of(KEEP) if not outcome.is_failed]
    missing = [why for tool in wanted(situation) if (why := lacking(tool, situation.outcomes_of(tool)))]
    return {
        "goal": situation.task,
        "plan": brought(situation, PLAN),
        "review": brought(situation, REVIEW),
        "memory_id": kept[0]["memory_id"] if kept else "",
        "missing": missing,
    }


def lacking(tool: str, outcomes: list[Outcome]) -> str:
    """Says why a call brought nothing; empty: it did."""
    if not outcomes:
        return f"{tool}: it is not a tool of this agent"
    return f"{tool}: {outcomes[0].error}" if outcomes[0].error else ""


agent = Agent(
    "coordinator",
    "Has a goal planned, the plan reviewed, and keeps both.",
    delegates=("planner", "reviewer"),
    skills=("coordinate",),
    model=InTurn(),
    remembers=True,  # brings memory.remember, which is idempotent: what is kept is kept once
    guardrails=DEFAULT,  # Injection is among them: a prompt that gives orders is blocked before anything is asked
    output_schema=RESULT,
)
