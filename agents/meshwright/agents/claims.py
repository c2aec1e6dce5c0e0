"""Claims held against sentences by their words, numbers and negations: no language model, and no understanding."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from meshwright.agents.extract import MOST_CHARACTERS, MOST_SENTENCES, Passage
from meshwright.agents.sentences import sentences, stem, words

Verdict = Literal["supported", "contradicted", "not found"]

LEAST_COVERAGE = 0.6
"""Part of a claim's words that a sentence must share to speak of the same thing."""

_DENYING = """
cannot fail failed fails hardly lack lacks neither never no nobody none nor not nothing nowhere without
"""
_NEGATIONS = frozenset(_DENYING.split())
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ONES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_SPELLED = {word: float(value) for value, word in enumerate(_ONES.split())}
_SPELLED |= {word: float(20 + 10 * place) for place, word in enumerate(_TENS)}
_SPELLED |= {"hundred": 100.0, "thousand": 1_000.0, "million": 1_000_000.0}
_PRONOUN = "one"
"""Counts as a number only beside another word for it, as in `one second`: `one of them` counts nothing."""
_TOKEN = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|[^\W\d_]+(?:['’][^\W_]+)*")  # noqa: RUF001 - typographic
_KEPT_FROM = re.compile(r"\b(?:keep|keeps|kept|prevent|prevents|prevented|stop|stops|stopped)\b[^,;:]{1,80}\bfrom\b")
"""Denies what follows, as in `keeps it from writing`."""
_CONTRACTED = ("n't", "n’t")  # noqa: RUF001
_OPPOSITES = [
    ("after", "before"),
    ("above", "below"),
    ("accept", "refuse"),
    ("allow", "deny"),
    ("begin", "end"),
    ("decrease", "increase"),
    ("disable", "enable"),
    ("false", "true"),
    ("fall", "rise"),
    ("faster", "slower"),
    ("first", "last"),
    ("larger", "smaller"),
    ("less", "more"),
    ("lose", "win"),
    ("maximum", "minimum"),
    ("most", "least"),
    ("open", "closed"),
    ("start", "stop"),
]
_OPPOSITE = {stem(word): stem(other) for pair in _OPPOSITES for word, other in (pair, pair[::-1])}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a claim.

    Attributes:
        claim: As it was given.
        verdict: What the best sentence says of it.
        sentence: That sentence, word for word; empty where nothing was found.
        source: Where it stands.
    """

    claim: str
    verdict: Verdict
    sentence: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class _Statement:
    """What is compared: stems, numbers with the stem of what they count, poles of opposites, and negations."""

    stems: frozenset[str]
    numbers: tuple[tuple[float, str], ...]
    poles: frozenset[str]
    negations: int

    @property
    def is_denied(self) -> bool:
        return self.negations % 2 == 1


def review(claims: Iterable[str], passages: Iterable[Passage]) -> list[Finding]:
    """Holds each claim against the sentences that share most of its words.

    A sentence supports a claim when it holds the claim's numbers and both deny or neither does. It contradicts the
    claim when it counts the same thing with another number, or when one denies, or says the opposite word, and the
    other does not. Paraphrases with other words are not found.

    Args:
        claims: One statement each.
        passages: Where to look: the first `MOST_SENTENCES` sentences and `MOST_CHARACTERS` characters.

    Returns:
        One finding for each claim, in their order.
    """
    stated = list(_stated(passages))
    return [_finding(claim, stated) for claim in claims]


def _stated(passages: Iterable[Passage]) -> Iterable[tuple[Passage, str, _Statement]]:
    characters, count = MOST_CHARACTERS, 0
    for passage in passages:
        for sentence in sentences(passage.text[:characters]):
            count += 1
            if count > MOST_SENTENCES:
                return
            yield passage, sentence, _statement(sentence)
        characters = max(0, characters - len(passage.text))


def _finding(claim: str, stated: Sequence[tuple[Passage, str, _Statement]]) -> Finding:
    """Takes the sentence that covers most of the claim.

    Of equals, one that supports it; then the one with the fewest negations and opposites that the claim has not, since
    those tell of another case (`two seconds before a lease ends`); then the first.
    """
    claimed = _statement(claim)
    best, found = (0.0, False, 0), Finding(claim, "not found")
    for passage, sentence, statement in stated:
        coverage = _coverage(claimed, statement)
        verdict = _verdict(claimed, statement) if coverage >= LEAST_COVERAGE else None
        rank = (coverage, verdict == "supported", -_asides(claimed, statement))
        if verdict and rank > best:
            best = rank
            found = Finding(claim, verdict, sentence, passage.source)
    return found


def _coverage(claim: _Statement, sentence: _Statement) -> float:
    """Returns the part of the claim's words that the sentence holds; an opposite counts as held."""
    held = sum(word in sentence.stems or _OPPOSITE.get(word) in sentence.poles for word in claim.stems)
    return held / len(claim.stems) if claim.stems else 0.0


def _asides(claim: _Statement, sentence: _Statement) -> int:
    """Counts negations and opposites of a sentence that the claim has not."""
    return max(0, sentence.negations - claim.negations) + len(sentence.poles - claim.poles)


def _verdict(claim: _Statement, sentence: _Statement) -> Verdict | None:
    """Compares two statements about the same thing; None: the sentence does not decide."""
    numbers = _numbers_verdict(claim, sentence)
    if numbers != "supported":
        return numbers
    turns = claim.is_denied != sentence.is_denied
    for pole in claim.poles - sentence.poles:
        turns ^= _OPPOSITE[pole] in sentence.poles
    return "contradicted" if turns else "supported"


def _numbers_verdict(claim: _Statement, sentence: _Statement) -> Verdict | None:
    """Looks for each number of a claim; another number of the same thing contradicts, no number at all says nothing."""
    given = {number for number, _ in sentence.numbers}
    open_ = [(number, unit) for number, unit in claim.numbers if number not in given]
    units = {unit for _, unit in sentence.numbers}
    if any(unit and unit in units for _, unit in open_):
        return "contradicted"
    return "supported" if all(number == 1 for number, _ in open_) else None  # `one worker` may stand for `a worker`


def _statement(text: str) -> _Statement:
    tokens = [match.group().lower() for match in _TOKEN.finditer(text)]
    numbers = _numbers(tokens)
    negations = sum(token in _NEGATIONS or token.endswith(_CONTRACTED) for token in tokens)
    negations += len(_KEPT_FROM.findall(text.lower()))
    skipped = {token for token in tokens if token in _SPELLED or token in _NEGATIONS or token[0].isdigit()}
    kept = " ".join(token for token in tokens if token not in skipped)
    poles = frozenset(_OPPOSITE) & {stem(token) for token in tokens}
    return _Statement(frozenset(words(kept)), tuple(numbers), poles, negations)


def _numbers(tokens: Sequence[str]) -> list[tuple[float, str]]:
    """Reads numbers, in digits or in words, each with the stem of the word that follows it."""
    found: list[tuple[float, str]] = []
    value: float | None = None
    for index, token in enumerate(tokens):
        number = _value(token)
        if number is not None:
            value = number if value is None else _joined(value, number)
            following = tokens[index + 1] if index + 1 < len(tokens) else ""
            if _value(following) is None:
                unit = (words(following) or [""])[0]
                if unit or token != _PRONOUN:
                    found.append((value, unit))
                value = None
    return found


def _value(token: str) -> float | None:
    if token[:1].isdecimal():
        return float(token.replace(",", ""))
    return _SPELLED.get(token)


def _joined(value: float, number: float) -> float:
    """Joins the words of one number: `twenty five`, `two hundred`."""
    return value * number if number >= _SPELLED["hundred"] else value + number
