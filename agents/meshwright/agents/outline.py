"""Goals taken apart into steps by their sentences and verbs: no language model, and no knowledge of the matter."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meshwright.agents.sentences import sentences, words

MOST_STEPS = 20
LONGEST_GOAL = 8_000
"""Characters of a goal that are looked at."""

Kind = Literal["find", "condense", "check", "make"]

_VERBS: dict[Kind, str] = {
    "find": "find search research gather collect look locate identify list read what how why who when where which",
    "condense": "summarise summarize condense shorten outline",
    "check": "check review verify validate confirm test prove audit",
    "make": """add answer arrange ask book build buy calculate call choose clean close compare compute configure convert
create decide define delete deploy describe design draft explain fix implement inform install invite make measure
migrate move notify open order organise organize pack plan prepare present publish recommend remove rename repair
replace report run schedule sell send set share ship sign start stop store tell translate update upgrade upload
write""",
}
_KIND: dict[str, Kind] = {
    word: kind for kind, listed in _VERBS.items() for verb in listed.split() for word in (verb, *words(verb))
}
_WRITING = frozenset(("answer", "compare", "describe", "document", "draft", "explain", "present", "report", "write"))
"""What these verbs make is made of findings, and can be checked against them."""
_LEAD = re.compile(
    r"^(?:(?:please|kindly|then|next|first(?:ly)?|second(?:ly)?|third(?:ly)?|finally|lastly|afterwards|after that|also"
    r"|and|we|i|you|should|must|need to|needs to|want to|have to|would like to|let us|let's|to)\b[\s,:]*)+",
    re.IGNORECASE,
)
_ASKS_FOR_PLAN = re.compile(
    r"^(?:plan(?:\s+how\s+to|\s+to)?\b|(?:make|draw up|write|give me|create)\s+(?:me\s+)?a\s+plan\s+(?:to|for|how to)\b"
    r"|break\s+down\b(?:\s+how\s+to)?|(?:what\s+are\s+)?the\s+steps\s+(?:to|for)\b)[\s:]*",
    re.IGNORECASE,
)
_COURTESY = re.compile(r"^(?:please|kindly|could you|can you)[\s,]+", re.IGNORECASE)
_JOINT = re.compile(r"\s*;\s*|\s*,?\s*\b(?:and\s+then|then|and)\s+(?=(\w+))|\s*,\s+(?=(\w+))", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*•])\s+(\S.*)$")
_BACK = re.compile(
    r"\b(?:it|its|them|their|that|this|these|those|the (?:results?|findings?|answers?))\b", re.IGNORECASE
)
_TITLE = re.compile(r"(\w+)[^:.!?\n]{0,200}:\s+(\w+)")
_ORDERED = re.compile(r"\b(?:then|afterwards|after that|next|finally|lastly)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Helper:
    """An agent that may get a step, and what it is good at."""

    name: str
    good_at: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        number: From 1.
        action: What, in the goal's own words where it says so.
        who: Agent that does it; empty: whoever asked.
        after: Steps that must have ended before; steps without a common one may run at once.
    """

    number: int
    action: str
    who: str
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Action:
    text: str
    kind: Kind
    is_ordered: bool


def outline(goal: str, helpers: Sequence[Helper]) -> list[Step]:
    """Breaks a goal into steps.

    List items, sentences and joined imperatives become steps. What is written from findings gets a step before it that
    finds them and one after it that checks the result, where an agent is good at that and the goal does not say so
    itself. Finding needs nothing before it, unless it refers back; everything else waits for all that is open.

    Args:
        goal: What is to be reached, in plain words or as a list.
        helpers: Who may do a step; the one whose words fit best gets it.

    Returns:
        At most `MOST_STEPS` steps; empty when the goal holds no word.
    """
    actions = [_action(text) for text in _parts(goal[:LONGEST_GOAL])]
    actions = _completed([action for action in actions if action.text], helpers)[:MOST_STEPS]
    steps: list[Step] = []
    for number, action in enumerate(actions, 1):
        steps.append(Step(number, action.text, _fitting(action, helpers), _waits_for(action, steps)))
    return steps


def _parts(goal: str) -> list[str]:
    """Cuts a goal into its actions."""
    items = [match[1] for line in goal.splitlines() if (match := _ITEM.match(line))]
    if len(items) > 1:
        return items
    plain = _ASKS_FOR_PLAN.sub("", _COURTESY.sub("", goal.strip()))
    title = _TITLE.match(plain)
    if title and title[1].lower() not in _KIND and title[2].lower() in _KIND:
        plain = plain[title.start(2) :]
    return [clause for sentence in sentences(plain) for clause in _clauses(sentence)]


def _clauses(sentence: str) -> list[str]:
    """Cuts a sentence where a new imperative begins."""
    cuts, start = [], 0
    for joint in _JOINT.finditer(sentence):
        following = (joint[1] or joint[2] or "").lower()
        if ";" in joint[0] or following in _KIND or "then" in joint[0].lower():
            cuts.append(sentence[start : joint.start()])
            start = joint.start() if "then" in joint[0].lower() else joint.end()
    return [*cuts, sentence[start:]]


def _action(text: str) -> _Action:
    head = text.strip(" ,.;:!")
    plain = _LEAD.sub("", head.lstrip(", ")).strip(" ,.;:!")
    first = plain.split(" ", 1)[0].lower().strip("?") if plain else ""
    kinds: list[Kind] = [_KIND[word] for word in (first, *words(plain)) if word in _KIND]
    is_ordered = bool(_ORDERED.search(head[: len(head) - len(plain)]) or _BACK.search(plain))
    return _Action(plain[:1].upper() + plain[1:], kinds[0] if kinds else "make", is_ordered)


def _completed(actions: list[_Action], helpers: Sequence[Helper]) -> list[_Action]:
    """Adds finding before writing and checking after it, where somebody can do it and nobody was told to."""
    writing = [action for action in actions if action.text.split(" ", 1)[0].lower() in _WRITING]
    kinds = {action.kind for action in actions}
    if not writing:
        return actions
    if not kinds & {"find", "condense"} and not writing[0].is_ordered and _able("find", helpers):
        subject = writing[0].text.partition(" ")[2] or writing[0].text
        actions = [_Action(f"Find what is known for: {subject}", "find", is_ordered=False), *actions]
    if "check" not in kinds and _able("check", helpers):
        actions = [*actions, _Action("Check the claims of the result against their sources", "check", is_ordered=True)]
    return actions


def _fitting(action: _Action, helpers: Sequence[Helper]) -> str:
    """Picks who shares most with an action, its kind counting more than its words; a tie goes to the first."""
    asked = set(words(action.text))

    def score(helper: Helper) -> int:
        said = words(f"{helper.name} {helper.good_at}")
        is_able = action.kind != "make" and action.kind in {_KIND.get(word) for word in said}
        return 3 * is_able + len(asked & set(said))

    best = max(helpers, key=score, default=None)
    return best.name if best and score(best) > 0 and _may(action, best) else ""


def _may(action: _Action, helper: Helper) -> bool:
    """Keeps what is to be made away from agents that only find, condense or check."""
    kinds = {_KIND.get(word) for word in words(f"{helper.name} {helper.good_at}")} - {None}
    return action.kind in kinds or not kinds


def _able(kind: Kind, helpers: Sequence[Helper]) -> bool:
    return any(kind in {_KIND.get(word) for word in words(f"{one.name} {one.good_at}")} for one in helpers)


def _waits_for(action: _Action, before: Sequence[Step]) -> tuple[int, ...]:
    """Returns the steps that nothing waits for yet; finding needs none, unless it refers back."""
    if action.kind == "find" and not action.is_ordered:
        return ()
    awaited = {number for step in before for number in step.after}
    return tuple(step.number for step in before if step.number not in awaited)
