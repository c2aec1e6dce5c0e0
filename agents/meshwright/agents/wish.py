"""Whether somebody wants to speak to a person: a rule over English words. Pure."""

import re
import unicodedata
from collections.abc import Awaitable, Callable

Wish = Callable[[str], bool | Awaitable[bool]]
"""Says whether a message asks for a person."""
LOOKED_AT = 1_000
"""Characters at either end of a text: nobody hides such a wish in the middle of a document."""

_QUOTED = re.compile(r"\"[^\"]{0,1000}\"|(?<!\w)'[^']{0,1000}'(?!\w)|`[^`]{0,1000}`")
_CLAUSE = re.compile(r"[.!?;:,\n()]+| - ")
_SENTENCE = re.compile(r"[.!?\n]+")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)?")
_PERSON = (
    r"(?:human(?: being| agent| operator| representative| person| advisor)?|person|agent|representative|rep|operator"
    r"|employee|manager|supervisor|boss|team leader|advisor|adviser|colleague|somebody|someone|staff(?: member)?"
    r"|member of (?:the |your )?(?:staff|team)|real people|(?:customer|technical|tech) (?:service|support|care)"
    r"|support (?:team|staff)|help ?desk)"
)
_KIND = (
    r"(?:(?:a|an|the|some|any|one|of|your|another|actual|real|live|living|proper|human|support|service|customer"
    r"|senior|different|qualified) )*"
)
_ONE = rf"(?:{_KIND}{_PERSON}|one of (?:your|the) (?:human )?(?:agents|people|colleagues|representatives|staff|team))"
_NOW = r"please|now|here|instead|immediately|asap|right|today|tomorrow"
_THEN = (  # what may stand after a person who is meant; "human rights" and "person object" are something else
    rf"(?= (?:{_NOW}|on|to|about|regarding|concerning|who|that|because|since|at|from|for|so|and|or|directly|again|first"
    r"|before|not|i|we|over|via|by|this|real|if|when|rather|in charge)\b|$)"
)
_END = (
    rf"(?= (?:{_NOW}|on the (?:phone|line)|not an?|and not|i can|look at|involved|take over"
    r"|to (?:help|talk|speak|chat|look|handle|call|contact|assist|deal|take))\b|$)"
)
_PLEASE = r"(?:please |just |now |ok |okay |hi |hello |hey |so |and |then |no |actually |first |look )*"
_I = r"(?:i|we) (?:really |just |only |still |now |again |would |do |then )*"
_WANT = (
    rf"(?:{_I}(?:want|need|wish|demand|prefer|insist|like|rather|request|am asking|asked)(?: you)? (?:to |on )?"
    r"|(?:i'm|we're) asking (?:you )?(?:to |for )?|let's |would you mind "
    r"|(?:i'd|we'd) (?:really |much )*(?:like|prefer|rather|love) (?:you )?(?:to )?|i wanna "
    r"|(?:why |how |when |where )?(?:do|can|could|may|might|can't|cannot|couldn't) ?(?:i|we) (?:please |just )*"
    r"|(?:is there a |any )way to |let (?:me|us) (?:just )?|(?:is it|would it be) possible (?:for me )?to "
    r"|(?:can|could|would|will) (?:you|u) (?:please |just )?)"
)
_LED = rf"(?:^{_PLEASE}|{_WANT})"
_NEED = rf"(?:{_LED}|\bi (?:really |just )*)"
_ASIDE = r"(?: directly| again| please| now| over the phone| on the phone)?"
_TALK = r"(?:speak|talk|chat|deal|complain|communicate)(?:ing)?"
_SPEAK = rf"(?:{_TALK}{_ASIDE} (?:to|with)|have a (?:word|chat|call) with)"
_MOVE = r"(?:connect|transfer|putt?|hand|pass|forward|switch|redirect|refer|get|patch)(?:ing)? (?:me|us)(?: \w+)?"
_MOVED = r"(?:connected|transferred|put through|forwarded|redirected|handed over|passed on)(?: over)?"
_HAVE = r"(?:need|want|have|get|see|demand|give me|get me|find me|send me|bring me)"
_HELP = r"(?:help|assistance|support|advice|attention|contact|intervention)"
_CAN = r"(?:can|could|may)(?: please| actually)?"
_MAY = r"(?:have|get|let|ask|need|want|can|could|may|would|will)"
_CALL = r"(?:(?:call|contact|phone|ring|email|get back to) (?:me|us)\b|take over\b)"
_RULE_TEXT = (
    rf"{_LED}{_SPEAK} {_ONE}{_THEN}",
    rf"{_LED}{_MOVE}(?: through| over| on)? (?:to|with) {_ONE}{_THEN}",
    rf"(?:be|get|being) {_MOVED} (?:to|with) {_ONE}{_THEN}",
    rf"^{_PLEASE}(?:connect|transfer) to (?!the ){_ONE}{_END}",
    rf"{_LED}(?:transfer|connect) (?:me|us)(?: please| now| now please)?$",
    rf"{_LED}(?:escalate|forward|pass|hand)(?: this| it| my| the)?(?: \w+)?(?: on| over)? to (?!the ){_ONE}{_END}",
    rf"{_WANT}(?:reach|contact|get to|get through to|get hold of|get in touch with) {_ONE}{_END}",
    rf"{_NEED}{_HAVE} {_ONE}{_END}",
    rf"^{_PLEASE}(?:give|get) me {_ONE} (?:who|that|from)\b",
    rf"{_NEED}(?:{_HAVE} )?(?:some )?human {_HELP}(?= (?:please|now|here|with)\b|$)",
    rf"\bi (?:\w+ )?(?:need|want|get|have) (?:\w+ )?{_HELP} (?:from|by|of) {_ONE}{_THEN}",
    rf"(?:{_ONE}|anyone|anybody)(?: there| here| real)*(?: that| who| whom)? (?:i|we) {_CAN} {_TALK}",
    rf"{_LED}(?:{_MAY} )?{_ONE} (?:from \w+ \w+ )?(?:to )?(?:please )?{_CALL}",
    rf"\b(?:called|contacted|phoned|helped)(?: back)? by {_ONE}{_THEN}",
    rf"\bcall ?back from {_ONE}{_THEN}",
    rf"{_LED}put {_ONE} on{_END}",
)
_RULES = tuple(map(re.compile, _RULE_TEXT))
_BARE = re.compile(rf"^{_PLEASE}(?:but )?{_KIND}{_PERSON}(?: please| now)*$")
_SHORT = 300
"""Characters of a message in which a person's name alone, as a whole sentence, is a wish and no heading."""
_REFUSED = re.compile(
    r"\b(?:not|never|no need|don't|doesn't|won't|wouldn't|without|nobody|instead of|rather than|didn't|cannot|can't)\b"
)
_WHY_NOT = re.compile(r"\b(?:why )?(?:can't|cannot|couldn't|won't you let) (?:i|we|me)\b")


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
    """Splits a text at marks; of each part only its words stay."""
    return [words for part in mark.split(text) if (words := " ".join(_WORDS.findall(part)))]


def _asks(clause: str) -> bool:
    """Whether a clause says it; what stands before the words decides whether it is refused."""
    clause = clause.removeprefix("but ")
    for rule in _RULES:
        if match := rule.search(clause):
            before = _WHY_NOT.sub(" ", clause[: match.end()])
            return not _REFUSED.search(before)
    return False
