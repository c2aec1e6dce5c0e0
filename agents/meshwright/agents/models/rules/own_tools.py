"""Tools that a user wrote: the one that fits the prompt best is called, and its result is the answer."""

import json
from collections.abc import Sequence
from typing import Any

from meshwright.agents.models.model import ToolSpec
from meshwright.agents.models.rules.arguments import Clues
from meshwright.agents.models.rules.delegation import ASK
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation
from meshwright.agents.sentences import words

NAME_WEIGHT, PARAMETER_WEIGHT, DESCRIPTION_WEIGHT = 3, 2, 1

BUNDLED = ("docs.", "summary.", "plan.", "review.")
"""Tools that have rules of their own."""


def own_tools(situation: Situation) -> Move | None:
    """Calls the tool whose name, parameters and description share most with the prompt; states what it gave."""
    if situation.outcomes:
        return Say("\n".join(_stated(outcome) for outcome in situation.outcomes))
    tool = _fitting(situation.task, situation.tools)
    if tool is None:
        return None
    if tool.name.startswith(ASK):
        return Do((Request(tool.name, {"prompt": situation.task}),))
    arguments, missing = Clues(situation.task).arguments(tool.parameters)
    return Say(_unfilled(tool, missing)) if missing else Do((Request(tool.name, arguments),))


def own_tool_first(situation: Situation) -> Move | None:
    """Takes a tool of the agent's own before another agent, where the prompt names it and holds all that it needs."""
    own = [tool for tool in situation.tools if not tool.name.startswith((ASK, *BUNDLED))]
    if not own or len(own) == len(situation.tools):
        return None
    names = {tool.name for tool in own}
    if situation.outcomes:
        is_own = all(outcome.call.tool in names for outcome in situation.outcomes)
        return Say("\n".join(_stated(outcome) for outcome in situation.outcomes)) if is_own else None
    asked = set(words(situation.task))
    named = [tool for tool in own if asked & set(words(tool.name.replace(".", " ").replace("_", " ")))]
    tool = max(named, key=lambda tool: _overlap(asked, tool), default=None)
    if tool is None:
        return None
    arguments, missing = Clues(situation.task).arguments(tool.parameters)
    return None if missing else Do((Request(tool.name, arguments),))


def _fitting(task: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    """Picks the tool that shares most words with the task; a tool that is alone need not share any."""
    asked = set(words(task))
    best = max(tools, key=lambda tool: _overlap(asked, tool), default=None)
    is_meant = best is not None and (len(tools) == 1 or _overlap(asked, best) > 0)
    return best if is_meant else None


def _overlap(asked: set[str], tool: ToolSpec) -> int:
    parameters = " ".join(tool.parameters.get("properties", {}))
    weighted = ((tool.name, NAME_WEIGHT), (parameters, PARAMETER_WEIGHT), (tool.description, DESCRIPTION_WEIGHT))
    return sum(weight * len(asked & set(words(text))) for text, weight in weighted)


def _unfilled(tool: ToolSpec, missing: Sequence[str]) -> str:
    named = ", ".join(f"{name} ({_kind(tool, name)})" for name in missing)
    return f"The tool {tool.name} fits, but the prompt holds no value for {named}: say it as {missing[0]}: ..."


def _kind(tool: ToolSpec, name: str) -> str:
    schema = tool.parameters["properties"][name]
    return str(schema.get("type", "any type")) if isinstance(schema, dict) else "any type"


def _stated(outcome: Outcome) -> str:
    if outcome.is_failed:
        return f"The tool {outcome.call.tool} failed: {outcome.reason}"
    return _readable(outcome.value)


def _readable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
