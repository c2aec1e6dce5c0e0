"""Extractive work on text: which sentences of some passages say most about a question, each with its source."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from meshwright.agents.sentences import sentences, words

MOST_SENTENCES = 2_000
"""Sentences that are looked at in one call, taken in turns from all passages."""
MOST_CHARACTERS = 1_000_000
"""Characters that are looked at in one call, an equal share of each passage."""
POSITION_WEIGHT = 0.1
"""How much the first sentence of a passage is worth more than a late one."""
QUESTION_WEIGHT = 0.25
"""A sentence that asks seldom answers."""
FEWEST_WORDS = 2
"""Meaningful words below which a sentence is worth less: it is a label rather than a statement."""
LABEL_WEIGHT = 0.7
"""What ends without a full stop is often a heading or a path."""
LEAST_SHARE = 0.25
"""Part of the best score below which a sentence only fills space."""
MOST_ALIKE = 0.6
"""Shared part of the words from which two sentences say the same."""

_SATURATION, _LENGTH = 1.2, 0.5  # k1 and b of BM25; sentences vary less in length than documents
_STATEMENT_ENDS = ".!…。)\"'”`"
_SHORT = 4  # words that are added to each sentence, so that the shortest ones do not stand for the whole
_SOURCE_LINE = re.compile(r"^[ \t]*source:[ \t]*(\S[^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text and where it comes from."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Extract:
    """A sentence that was chosen; `score` orders the sentences of one call and means nothing beside another call's."""

    source: str
    sentence: str
    score: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: str
    sentence: str
    place: int
    counts: Counter[str]


def extract(question: str, passages: Iterable[Passage], most: int = 5) -> list[Extract]:
    """Chooses the sentences that say most about a question.

    Scores are BM25 over sentences, with a little more weight for early ones; a sentence that repeats a better one is
    left out. The same input always gives the same output.

    Args:
        question: What is asked. Without a meaningful word (`""`, `"What is it?"`) the sentences that stand for the
            whole are chosen.
        passages: Where to look: the first `MOST_SENTENCES` sentences, taken in turns from all passages.
        most: Upper bound for the number of sentences.

    Returns:
        Best first; empty when no sentence shares a word with the question.
    """
    candidates = _candidates(tuple(passages))
    asked = list(dict.fromkeys(words(question)))
    scores = _relevance(asked, candidates) if asked else _salience(candidates)
    ranked = sorted(
        ((_weighted(score, each), each) for score, each in zip(scores, candidates, strict=True) if score > 0),
        key=lambda pair: -pair[0],
    )
    least = ranked[0][0] * LEAST_SHARE if ranked else 0.0
    return _distinct([pair for pair in ranked if pair[0] >= least], most)


def sections(text: str, source: str = "") -> list[Passage]:
    """Reads passages out of text in which lines `source: NAME` say where the text below them comes from.

    Args:
        text: Text with or without such lines.
        source: What the text before the first such line is ascribed to.

    Returns:
        Passages that hold text, in reading order.
    """
    parts = _SOURCE_LINE.split(text)
    pairs = zip([source, *parts[1::2]], parts[::2], strict=True)
    return [Passage(name, body.strip()) for name, body in pairs if body.strip()]


def sectioned(passages: Iterable[Passage]) -> str:
    """Writes passages as text that `sections` reads back."""
    return "\n\n".join(f"source: {passage.source}\n{passage.text}" for passage in passages)


def _candidates(passages: Sequence[Passage]) -> list[_Candidate]:
    """Takes sentences in turns, so that a long passage does not crowd out a short one."""
    share = MOST_CHARACTERS // max(1, len(passages))
    columns = [_sentences_of(passage, share) for passage in passages]
    turns = chain.from_iterable(zip_longest(*columns))
    seen: dict[str, _Candidate] = {}
    for each in islice((each for each in turns if each), MOST_SENTENCES):
        seen.setdefault(each.sentence.casefold(), each)
    return list(seen.values())


def _sentences_of(passage: Passage, characters: int) -> Iterator[_Candidate]:
    for place, sentence in enumerate(sentences(passage.text[:characters])):
        yield _Candidate(passage.source, sentence, place, Counter(words(sentence)))


def _relevance(asked: Sequence[str], candidates: Sequence[_Candidate]) -> list[float]:
    """Scores by the words that a sentence shares with the question: rare ones more (BM25), and most of them at once."""
    found = {word: sum(word in each.counts for each in candidates) for word in asked}
    rarity = {word: math.log(1 + (len(candidates) - n + 0.5) / (n + 0.5)) for word, n in found.items()}
    lengths = [each.counts.total() for each in candidates]
    usual = sum(lengths) / len(lengths) if any(lengths) else 1.0

    def score(each: _Candidate, length: int) -> float:
        damping = _SATURATION * (1 - _LENGTH + _LENGTH * length / usual)
        shared = [word for word in asked if word in each.counts]
        gains = (
            rarity[word] * each.counts[word] * (_SATURATION + 1) / (each.counts[word] + damping) for word in shared
        )
        return sum(gains) * (1 + len(shared) / len(asked))

    return [score(each, length) for each, length in zip(candidates, lengths, strict=True)]


def _salience(candidates: Sequence[_Candidate]) -> list[float]:
    """Scores by how much a sentence speaks of what the whole speaks of."""
    spread = Counter(chain.from_iterable(each.counts.keys() for each in candidates))

    def score(each: _Candidate) -> float:
        said = sum(math.log1p(spread[word]) for word in each.counts)
        return said / math.pow(len(each.counts) + _SHORT, 0.75)

    return [score(each) for each in candidates]


def _weighted(score: float, candidate: _Candidate) -> float:
    early = 1 + POSITION_WEIGHT / (1 + candidate.place)
    full = min(1.0, len(candidate.counts) / FEWEST_WORDS)
    ending = {"?": QUESTION_WEIGHT, "": 1.0}.get(candidate.sentence[-1:].strip(_STATEMENT_ENDS), LABEL_WEIGHT)
    return score * early * full * ending


def _distinct(ranked: Sequence[tuple[float, _Candidate]], most: int) -> list[Extract]:
    """Takes the best that do not repeat one taken before."""
    taken: list[_Candidate] = []
    extracts: list[Extract] = []
    for score, each in ranked:
        if len(taken) >= most:
            break
        if all(_likeness(each.counts, other.counts) < MOST_ALIKE for other in taken):
            taken.append(each)
            extracts.append(Extract(each.source, each.sentence, round(score, 4)))
    return extracts


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """Returns the shared part of both sentences' words, 0 to 1."""
    shared = len(one.keys() & other.keys())
    return shared / max(1, len(one) + len(other) - shared)
