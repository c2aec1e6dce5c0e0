"""Whether somebody wants to speak to a person: a rule over English words. Pure."""

import re
import unicodedata

LOOKED_AT = 1_000
"""Characters at either end of a text: nobody hides such a wish in the middle of a document."""

_QUOTED = re.compile(r"\"[^\"]{0,1000}\"|(?<!\w)'[^']{0,1000}'(?!\w)|`[^`]{0,1000}`")
_CLAUSE = re.compile(r"[.!?;:,\n()]+| - ")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)?")
_PERSON = (
    r"(?:human(?: being| agent| operator| representative| person)?|person|people|agent|representative|rep|operator"
    r"|employee|manager|supervisor|advisor|adviser|somebody|someone|staff(?: member)?|member of (?:the )?staff)"
)
_KIND = r"(?:(?:a|an|the|some|any|one|of|your|another|actual|real|live|living|proper|human|support|service|customer) )*"
_ONE = rf"{_KIND}{_PERSON}"
_NOT_ONE = r"(?! (?:rights?|resources?|bod(?:y|ies)|nature|history|brains?|anatomy|errors?|factors?|like|as|in the))"
_END = r"(?= (?:please|now|here|instead|immediately|asap|right|today|on|to (?:help|talk|speak|chat|look|handle))\b|$)"
_PLEASE = r"(?:please |just |now |ok |okay |hi |hello |hey |so |and |then |no |actually |first )*"
_WANT = (
    r"(?:(?:i|we) (?:really |just |only |still |now )*(?:want|need|wish|demand|prefer|insist|would like|'d like|"
    r"would prefer|would rather|am asking|asked)(?: you)? (?:to |on )?|(?:i|we)'d (?:like|prefer|rather) (?:to )?"
    r"|i wanna "
    r"|(?:why |how |when |where )?(?:do |can|could|may|might|can't|cannot|couldn't) ?(?:i|we) (?:please |just )?"
    r"|(?:is there a |any )way to |let (?:me|us) "
    r"|is it possible to |(?:can|could|would|will) you (?:please )?)"
)
_SPEAK = (
    r"(?:speak(?:ing)?|talk(?:ing)?|chat(?:ting)?|(?:be )?connect(?:ed)?|(?:be )?transfer(?:red)?"
    r"|(?:be )?put through|get through|escalate|hand|pass|forward|switch|put|get|reach|contact)"
    r"(?: me| us| this| it| my \w+| over| directly| through| on| in touch| again)* (?:to |with )?"
)
_HAVE = r"(?:need|want|get(?: me)?|give me|find me|have|send me|bring me|call me|see|demand) "
_RULES = tuple(
    re.compile(rule)
    for rule in (
        rf"(?:^{_PLEASE}|{_WANT}){_SPEAK}{_ONE}\b{_NOT_ONE}",
        rf"(?:^{_PLEASE}|{_WANT}|\bi (?:really |just )*){_HAVE}{_ONE}{_END}",
        rf"^{_PLEASE}(?:is|are) there {_ONE}{_NOT_ONE} .*\b(?:i|we) (?:can|could) (?:speak|talk|chat)",
        rf"^{_PLEASE}(?:can|could|may|would) {_ONE} (?:please )?(?:call|help|contact|assist|ring|phone) (?:me|us)\b",
    )
)
_BARE = re.compile(rf"^{_PLEASE}(?:but )?{_KIND}{_PERSON}(?: please| now)*$")
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
    plain = re.sub(r"[“”„«»]", '"', plain)
    parts = (" ".join(_WORDS.findall(part)) for part in _CLAUSE.split(_QUOTED.sub(" ", plain)))
    clauses = [part for one in parts if one for part in re.split(r" (?=but )", one)]
    is_short = sum(len(clause.split()) for clause in clauses) <= 6  # noqa: PLR2004 - hardly more than the one word
    is_bare = any(_BARE.match(clause) for clause in clauses if is_short or clause.startswith("but "))
    return is_bare or any(map(_asks, clauses))


def _asks(clause: str) -> bool:
    """Whether a clause says it; what stands before the words decides whether it is refused."""
    clause = clause.removeprefix("but ")
    for rule in _RULES:
        if match := rule.search(clause):
            before = _WHY_NOT.sub(" ", clause[: match.end()])
            return not _REFUSED.search(before)
    return False
