"""Plans: the goal of a prompt goes to the tool that outlines steps, and its steps become a numbered list."""

import re

from meshwright.agents.models.model import JsonObject
from meshwright.agents.models.rules.questions import without_courtesy
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation

OUTLINE = "plan.outline"
NOBODY = "whoever asked"
LONGEST_GOAL = 8_000
"""Characters; what is longer holds material rather than a goal."""

_TEAM = re.compile(r"^[ \t]*agents:[ \t]*$((?:\n[ \t]*[-*][ \t]+\S[^\n]*)+)", re.IGNORECASE | re.MULTILINE)
_MEMBER = re.compile(r"[-*][ \t]+([a-z][a-z0-9-]{0,62}):[ \t]+(\S[^\n]{0,999})")


def plans(situation: Situation) -> Move | None:
    """Lets the tool outline the goal, with the agents listed below a line `agents:`, and numbers its steps."""
    done = situation.outcomes_of(OUTLINE)
    if done:
        return Say(_listed(done[-1]))
    if situation.tool(OUTLINE) is None:
        return None
    goal = without_courtesy(_TEAM.sub("", situation.task))[:LONGEST_GOAL]
    team = [{"name": name, "good_at": text} for name, text in _members(situation.task)]
    return Do((Request(OUTLINE, {"goal": goal, **({"agents": team} if team else {})}),))


def _members(task: str) -> list[tuple[str, str]]:
    block = _TEAM.search(task)
    return _MEMBER.findall(block[1]) if block else []


def _listed(outcome: Outcome) -> str:
    steps = outcome.value.get("steps") if isinstance(outcome.value, dict) else None
    if not isinstance(steps, list):
        return f"The tool {OUTLINE} failed: {outcome.reason}"
    lines = [_line(step) for step in steps if isinstance(step, dict)]
    return "\n".join(lines) or "There is nothing to plan: say what is to be done, as in: find X, then write Y."


def _line(step: JsonObject) -> str:
    after = ", ".join(str(number) for number in step.get("after") or ())
    return (
        f"{step.get('number')}. {step.get('action')} - {step.get('who') or NOBODY}{f', after {after}' if after else ''}"
    )
