"""Whether somebody wants to speak to a person: a rule over English words. Pure."""

import re
import unicodedata
from collections.abc import Awaitable, Callable
from functools import cache

Wish = Callable[[str], bool | Awaitable[bool]]
"""Says whether a message asks for a person."""
LOOKED_AT = 1_000
"""Characters at either end of a text: nobody hides such a wish in the middle of a document."""

_QUOTED = re.compile(
    r"\"[^\"]{0,1000}\"|(?<!\w)'[^']{0,1000}'(?!\w)|`[^`]{0,1000}`"
    r"|\b(?:asked|asks|said|says|wrote|writes|asking|saying): [^\n]{0,1000}"
)
_CLAUSE = re.compile(r"[.!?;:,\n()]+| - ")
_SENTENCE = re.compile(r"[.!?\n]+")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)?")
_FILLER = re.compile(
    r"\b(?:please|pls|just|really|still|actually|kindly|directly|finally|already|also|maybe|immediately|simply|again|now"
    r"|asap|ok|okay|hi|hello|hey|then|first|instead|urgently|honestly|right away|at once|very much|today)\b ?"
)
_PERSON = (
    r"(?:humans?(?: being| agent| operator| representative| person| advisor)?|person|agent|representative|rep|csr"
    r"|operator|employee|manager|supervisor|boss|team leader|technician|specialist|consultant|associate|superior"
    r"|advis[eo]r|colleague|somebody|someone|staff(?: member)?|member of (?:the |your )?(?:staff|team)|real people"
    r"|(?:customer|technical|tech) (?:service|support|care|relations)|support (?:team|staff)|help ?desk)"
)
_KIND = (
    r"(?:(?:a|an|the|some|any|one|of|your|another|actual|real|live|living|proper|human|support|service|customer"
    r"|senior|different|qualified|account|sales|billing) )*"
)
_ONE = rf"(?:{_KIND}{_PERSON}|one of (?:your|the) (?:human )?(?:agents|people|colleagues|representatives|staff|team))"
_PLACE = rf"(?:{_ONE}|(?:your )?(?:support|sales|billing|management|team)|anyone|anybody)"
_THEN = (  # what may stand after a person who is meant; "human rights" and "person object" are something else
    r"(?= (?:on|to|about|regarding|concerning|who|that|because|since|at|from|for|so|and|or|before|not|i|we|over|via|by"
    r"|this|real|if|when|with|of yours|right|here|rather|as|in(?! an? | the story))\b|$)"
)
_END = (
    r"(?= (?:on the (?:phone|line)|not an?|and not|i can|look at|involved|take over|here|of yours|right|rather than"
    r"|to (?:help|talk|speak|chat|look|handle|call|contact|assist|deal|take))\b|$)"
)
_START = r"^(?:so |and |no |look |yes |well |but )*"
_I = r"(?:i|we) (?:would |do |am |are )*"
_WANT = (
    rf"(?:{_I}(?:want|need|wish|demand|prefer|insist|like|love|rather|request|require)(?: you)? (?:to |on )?"
    r"|(?:am|are) (?:asking|requesting|demanding|trying|looking|waiting|hoping)(?: you)? (?:to |for )"
    r"|let's |would you mind "
    r"|i wanna |(?:do|can|could|may|might|can't|cannot|couldn't|would|should) ?(?:i|we) "
    r"|(?:where|when|how|so|so that|which|number) (?:i|we) (?:can|could) "
    r"|way to |let (?:me|us) |possible (?:for me )?to |(?:can|could|would|will) (?:you|u) )"
)
_LED = rf"(?:{_START}|{_WANT})"
_NEED = rf"(?:{_LED}|\bi )"
_TALK = r"(?:speak|talk|chat|deal|complain|communicate)(?:ing)?"
_MEET = r"(?:have|get) (?:a )?(?:\w+ )?(?:with|on the phone with)"
_SPEAK = rf"(?:{_TALK}(?: over the phone| on the phone)? (?:to|with)|{_MEET})"
_MOVE = (
    r"(?:connect|transfer|put|hand|pass|forward|switch|redirect|refer|get|patch|take|escalate|send|move|hook)(?:t?ing)?"
)
_WHAT = r"(?:me|us|it|this|(?:this|my) \w+)"
_MOVED = r"(?:connected|transferred|put through|forwarded|redirected|handed over|passed on|escalated)(?: over)?"
_HAVE = r"(?:need|want|have|get|see|demand|involve|find|give me|get me|find me|send me|bring me|bring in|loop in)"
_HELP = r"(?:help|assistance|support|advice|attention|contact|intervention)"
_CALL = r"(?:(?:call|contact|phone|ring|email|get back to) (?:me|us)\b|take over\b)"
_RULE_TEXT = (
    rf"{_LED}{_SPEAK} {_PLACE}{_THEN}",
    rf"{_LED}{_MOVE} (?:me|us)(?: \w+){{0,3}}? (?:to|with) {_PLACE}{_THEN}",
    rf"{_LED}{_MOVE} {_WHAT}(?: on| over| up)? to (?!the ){_ONE}{_END}",
    rf"(?:be|get|being) {_MOVED} (?:to|with) {_PLACE}{_THEN}",
    rf"{_START}(?:connect|transfer|escalate|hand over|hand off) to (?!the ){_ONE}{_END}",
    rf"{_LED}(?:transfer|connect) (?:me|us)$",
    rf"{_WANT}(?:reach|contact|get to|get through to|get hold of|get in (?:touch|contact) with|hear from) {_ONE}{_END}",
    rf"(?:{_NEED}{_HAVE} |{_WANT}){_ONE}{_END}",
    rf"{_START}(?:give|get) me {_ONE} (?:who|that|from)\b",
    rf"{_NEED}(?:{_HAVE} )?(?:some )?human {_HELP}(?= (?:here|with)\b|$)",
    rf"\bi (?:\w+ )?(?:need|want|get|have) (?:\w+ )?{_HELP} (?:from|by|of) {_ONE}{_THEN}",
    rf"(?:{_ONE}|anyone|anybody)(?: \w+){{0,3}}? (?:i|we) (?:can|could|may) {_TALK}",
    rf"{_LED}(?:(?:have|get|ask|can|could|may|would|will) )?{_ONE} (?:from \w+ \w+ )?(?:to )?{_CALL}",
    rf"{_LED}(?:can|could|may|would) (?!some){_ONE} (?:help|assist|answer|serve) (?:me|us)\b",
    rf"\b(?:called|contacted|phoned|helped|served)(?: back)? by {_ONE}{_THEN}",
    rf"\bcall ?back from {_ONE}{_THEN}",
    rf"^(?:is|are) (?:there )?{_ONE} (?:available|there|around)$",
    rf"{_LED}put {_ONE} on{_END}",
)
_BARE = re.compile(rf"^(?:but )?(?:{_KIND}{_PERSON}(?: |$)){{1,3}}$")
_SHORT = 300
"""Characters of a message in which a person's name alone, as a whole sentence, is a wish and no heading."""
_REFUSED = re.compile(
    r"\b(?:not|never|no need|don't|doesn't|won't|wouldn't|without|nobody|instead of|rather than|didn't|cannot|can't)\b"
)
_WHY_NOT = re.compile(r"\b(?:why )?(?:can't|cannot|couldn't|won't you let) (?:i|we|me)\b")


@cache
def rules() -> tuple[re.Pattern[str], ...]:
    """Compiles the rules, which takes a moment: a process does it before it serves, if it looks for the wish at all."""
    return tuple(map(re.compile, _RULE_TEXT))


def wants_person(text: str) -> bool:
    """Tells whether a message asks for a person instead of a machine.

    What stands in quotes, what is said of others and what is refused does not count: "human rights", "do not call a
    human", "what do customers mean who want to speak to a human".

    Args:
        text: Of any length; `LOOKED_AT` characters at either end are looked at.
    """
    ends = (text,) if len(text) <= 2 * LOOKED_AT else (text[:LOOKED_AT], text[-LOOKED_AT:])
    return any(_is_said(part) for part in ends)


def _is_said(text: str) -> bool:
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")  # noqa: RUF001 - a typographic apostrophe
    plain = _QUOTED.sub(" ", re.sub(r"[“”„«»]", '"', plain))
    clauses = [part for one in _parts(_CLAUSE, plain) for part in re.split(r" (?=but )", one)]
    alone = _parts(_SENTENCE, plain) if len(text) <= _SHORT else []
    alone += [clause for clause in clauses if clause.startswith("but ")]
    return any(map(_BARE.match, alone)) or any(map(_asks, clauses))


def _parts(mark: re.Pattern[str], text: str) -> list[str]:
    """Splits a text at marks; of each part only its words stay, spelled out and without those that say nothing."""
    spelled = (
        text.replace("i'd ", "i would ").replace("we'd ", "we would ").replace("'m ", " am ").replace("'re ", " are ")
    )
    parts = (_FILLER.sub("", " ".join(_WORDS.findall(part))).strip() for part in mark.split(spelled))
    return [part for part in parts if part]


def _asks(clause: str) -> bool:
    """Whether a clause says it; what stands before the words decides whether it is refused."""
    clause = clause.removeprefix("but ")
    for rule in rules():
        if match := rule.search(clause):
            before = _WHY_NOT.sub(" ", clause[: match.end()])
            return not _REFUSED.search(before)
    return False
