"""Reviews: claims of a prompt are held against its sources, or against what a search of the documents brings."""

import re
from collections.abc import Sequence

from meshwright.agents.extract import Passage, extract, sections
from meshwright.agents.models.model import JsonObject
from meshwright.agents.models.rules.citations import NOTHING_FOUND, cited, with_sources
from meshwright.agents.models.rules.documents import HIT_TOKENS, SEARCH
from meshwright.agents.models.rules.questions import LONGEST_QUESTION, without_courtesy
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation
from meshwright.agents.sentences import sentences, words

COMPARE = "review.compare"
MOST_CLAIMS = 20
MOST_SEARCHED = 8
"""Claims that are looked for in the documents."""
MOST_HITS = 3
"""Hits that a search for one claim asks for, fewer when there is little room."""
SENTENCES_EACH = 3
"""Sentences of the hits that are compared with a claim."""
CLAIM_TOKENS = 150
"""What a claim takes to be compared and answered."""
LONGEST_SOURCES = 100_000
"""Characters of sources that are compared."""
HOW = "Compared by words, numbers and negations only."

_LEAD = re.compile(
    r"^(?:(?:review|check|verify|validate|fact-?check)\b\s*(?:(?:whether|that|if)\b)?"
    r"|(?:is it true that|are (?:these|the following) (?:claims?|statements?) (?:true|right|correct))\b)[\s:?]*",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"^(?:(?:these|this|those|the|my|our|following|below|above|claims?|statements?|answers?|texts?|summar(?:y|ies)|against"
    r"|with|by|their|its|sources?|documents?|docs|files?|and|of|in|for|me|please)\b[\s,]*)+(?::|$)\s*",
    re.IGNORECASE,
)
_CITATION = re.compile(r"[ \t]*\[[^\[\]\n]{1,200}\]")


def reviews(situation: Situation) -> Move | None:
    """Finds sources for each claim, lets the tool compare, and says for each which sentence decides."""
    compared = situation.outcomes_of(COMPARE)
    if compared:
        return Say(_listed(compared[-1], _left_out(situation)))
    return _begun(situation) if situation.tool(COMPARE) else None


def _begun(situation: Situation) -> Move:
    claims, given = _read(situation.task)
    if not claims:
        return Say("There is no claim to review: put one statement on each line.")
    if given:
        return _compared(claims, _bounded(given))
    searches = situation.outcomes_of(SEARCH)
    if searches:
        return _of_found(searches)
    if situation.tool(SEARCH):
        return _search(situation, claims)
    return Say(f"{NOTHING_FOUND} to review against: put sources below the claims, each led by a line 'source: NAME'.")


def _read(task: str) -> tuple[list[str], list[Passage]]:
    """Takes claims and sources out of a prompt.

    List marks, citations, words of courtesy and the mark of a question are no part of a claim.
    """
    parts = sections(task)
    lead = parts[0].text if parts and not parts[0].source else ""
    text = _LEAD.sub("", without_courtesy(lead), count=1)
    text = _TALK.sub("", text, count=1)
    body = _CITATION.sub("", cited(text).body)
    stated = [claim[:LONGEST_QUESTION].rstrip(" ?") for claim in sentences(body) if words(claim)]
    return list(dict.fromkeys(stated))[:MOST_CLAIMS], [part for part in parts if part.source]


def _bounded(passages: Sequence[Passage]) -> list[Passage]:
    share = LONGEST_SOURCES // max(1, len(passages))
    return [Passage(passage.source[:1_024], passage.text[:share]) for passage in passages[:50]]


def _search(situation: Situation, claims: Sequence[str]) -> Do:
    """Searches for as many claims as there is room for; hits are read twice, with the comparison and for the answer."""
    room = situation.room - 2 * situation.said
    searched = claims[: max(1, min(MOST_SEARCHED, room // (2 * HIT_TOKENS + CLAIM_TOKENS)))]
    limit = max(1, min(MOST_HITS, (room // len(searched) - CLAIM_TOKENS) // (2 * HIT_TOKENS)))
    return Do(tuple(Request(SEARCH, {"query": claim, "limit": limit}) for claim in searched))


def _of_found(searches: Sequence[Outcome]) -> Move:
    """Compares each claim that was searched for with the best sentences of all hits."""
    failed = [search for search in searches if search.is_failed]
    if len(failed) == len(searches):
        return Say(f"The tool {SEARCH} failed: {failed[0].reason}")
    claims = [str(search.call.arguments.get("query", "")) for search in searches]
    passages = [passage for search in searches for passage in _hits(search)]
    chosen: dict[str, dict[str, None]] = {}
    for claim in claims:
        for one in extract(claim, passages, SENTENCES_EACH):
            chosen.setdefault(one.source, {})[one.sentence] = None
    return _compared(claims, [Passage(source, "\n\n".join(kept)) for source, kept in chosen.items()])


def _hits(search: Outcome) -> list[Passage]:
    listed = search.value.get("hits") if isinstance(search.value, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [Passage(str(entry.get("source") or entry.get("id")), str(entry.get("text") or "")) for entry in entries]


def _compared(claims: Sequence[str], passages: Sequence[Passage]) -> Do:
    sources = [{"source": passage.source, "text": passage.text} for passage in passages if passage.text]
    return Do((Request(COMPARE, {"claims": list(claims), "sources": sources}),))


def _left_out(situation: Situation) -> list[str]:
    """Lists the claims for which there was no room."""
    claims, given = _read(situation.task)
    searched = {search.call.arguments.get("query") for search in situation.outcomes_of(SEARCH)}
    return [] if given or not searched else [claim for claim in claims if claim not in searched]


def _listed(outcome: Outcome, left_out: Sequence[str]) -> str:
    findings = outcome.value.get("findings") if isinstance(outcome.value, dict) else None
    if not isinstance(findings, list):
        return f"The tool {COMPARE} failed: {outcome.reason}"
    found = [finding for finding in findings if isinstance(finding, dict)]
    lines = [_line(number, finding) for number, finding in enumerate(found, 1)]
    lines += [f"Not reviewed, for lack of tokens: {claim}" for claim in left_out]
    sources = [str(finding["source"]) for finding in found if finding.get("source")]
    return with_sources("\n".join([*lines, "", HOW]), sources)


def _line(number: int, finding: JsonObject) -> str:
    line = f"{number}. {finding.get('verdict')}: {finding.get('claim')}"
    quote = finding.get("sentence")
    return f'{line}\n   "{quote}" [{finding.get("source")}]' if quote else line
