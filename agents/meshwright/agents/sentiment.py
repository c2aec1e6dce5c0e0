"""How a text sounds: a small lexicon of English words, no language model. Pure."""

import math
import re
import unicodedata
from collections.abc import Awaitable, Callable

Judge = Callable[[str], float | Awaitable[float]]
"""Says how a text sounds, from -1 (furious) to 1 (delighted)."""

LONGEST = 4_000
"""Characters; a longer text is a document, and how a document sounds says nothing about who sent it."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?", re.IGNORECASE)
_CLAUSE = re.compile(r"[.!?;:,\n]+")
_LEXICON_TEXT = {
    -4.0: """
        abysmal appalling atrocious despicable disgusting enraged fraud fraudsters furious hate infuriated infuriating
        livid outraged outrageous scam scammed scammers scandalous thieves
    """,
    -3.0: """
        angry atrocity awful cheated crap disgrace disgraceful disgusted dreadful garbage horrendous horrible horrific
        idiotic idiots incompetence incompetent insulting joke liars lied nightmare outrage pathetic ridiculous robbed
        rubbish shambles shame shameful shit stupid terrible trash unacceptable useless worst worthless
    """,
    -1.5: """
        annoyed annoying bad broken complain complaint disappointed disappointing disappointment failed fails
        frustrated frustrating frustration ignored lawyer mess poor sad sick sue tired unhappy upset waste wasted worse
        wrong
    """,
    1.5: "cool fine glad helpful kind like nice okay please polite quick solved thank thanks useful works",
    3.0: """
        amazing awesome beautiful best brilliant delighted excellent fantastic good great happy impressed love loved
        lovely perfect pleased wonderful
    """,
}
_LEXICON = {word: worth for worth, words in _LEXICON_TEXT.items() for word in words.split()}
_NEGATION_TEXT = "ain't aren't cannot can't didn't doesn't don't hardly isn't never no not wasn't without"
_NEGATIONS = frozenset(_NEGATION_TEXT.split())
_STRESS_TEXT = "absolutely bloody completely extremely fucking incredibly so totally truly utterly very"
_STRESSES = frozenset(_STRESS_TEXT.split())
_REACH = 3  # words before one that may turn it round or stress it
_STRESS, _SHOUT, _EXCLAIM = 1.4, 1.3, 0.5
_TURN = -0.5  # "not good" is bad, and less so than "bad"
_SATURATION = 15.0
_SHORTEST_SHOUT, _MOST_EXCLAIMED = 4, 3


def sentiment(text: str) -> float:
    """Scores how a text sounds by its words: lexical, English, blind to irony and to who is meant.

    Args:
        text: A message; one of more than `LONGEST` characters is not judged.

    Returns:
        From -1 to 1, 0 where nothing is said. One strong word stays above -0.75, two go below.
    """
    if len(text) > LONGEST:
        return 0.0
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")  # noqa: RUF001 - a typographic apostrophe
    clauses = [_WORD.findall(clause) for clause in _CLAUSE.split(plain)]
    worth = sum(_worth(found, place) for found in clauses for place in range(len(found)))
    if worth:
        worth += math.copysign(_EXCLAIM * min(plain.count("!"), _MOST_EXCLAIMED), worth)
    return worth / math.sqrt(worth * worth + _SATURATION)


def _worth(found: list[str], place: int) -> float:
    """Returns what a word is worth among those before it."""
    word = found[place]
    worth = _LEXICON.get(word.lower(), 0.0)
    if not worth:
        return 0.0
    if len(word) >= _SHORTEST_SHOUT and word.isupper():
        worth *= _SHOUT
    before = [one.lower() for one in found[max(0, place - _REACH) : place]]
    if not _STRESSES.isdisjoint(before):
        worth *= _STRESS
    is_turned = not _NEGATIONS.isdisjoint(before) and not {"never", "so"} <= set(before)  # "never been so angry"
    return worth * _TURN if is_turned else worth
