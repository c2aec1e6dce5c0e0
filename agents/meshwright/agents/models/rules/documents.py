"""Questions answered from documents: search, read the best hits, quote the sentences that answer."""

from dataclasses import dataclass
from typing import Any

from meshwright.agents.context import ANSWER_SHARE, MOST_ANSWER
from meshwright.agents.extract import Passage, extract
from meshwright.agents.models.model import JsonObject, estimated_tokens
from meshwright.agents.models.rules.citations import NOTHING_FOUND, bullets, with_sources
from meshwright.agents.models.rules.material import material_in
from meshwright.agents.models.rules.questions import LONGEST_QUESTION, keywords, without_courtesy
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation
from meshwright.agents.models.rules.summaries import EXTRACT

SEARCH, READ = "docs.search", "docs.read"
MOST_HITS = 6
"""Hits that a search asks for, fewer when there is little room."""
HIT_TOKENS = 350
"""What a hit may take."""
ANSWER_TOKENS = 300
"""What the answer may take, at the least."""
READ_TOKENS = 100
"""What a document takes beside its text: id, source and headings."""
NEIGHBOURS = 3
"""Times the longest hit that a document may take, as it comes with what stands around it."""
MOST_READ = 3
"""Documents that are read for one answer."""
MOST_SEARCHES = 2
"""The question as it stands, then its keywords alone."""


@dataclass(frozen=True, slots=True)
class _Hit:
    """A found document; `id` is as the search gave it."""

    id: Any
    source: str
    text: str


def documents(situation: Situation) -> Move | None:
    """Searches, searches again with keywords only, reads the best hits, and quotes what answers the question."""
    searches = situation.outcomes_of(SEARCH)
    can_search = situation.tool(SEARCH) is not None
    is_for_summary = situation.tool(EXTRACT) is not None and material_in(situation.task) is not None
    if not searches and (not can_search or is_for_summary):
        return None
    question = without_courtesy(situation.task[:LONGEST_QUESTION])
    if not searches:
        return _search(situation, question)
    hits = _hits(searches[-1])
    if hits is None:
        return Say(f"The tool {SEARCH} failed: {searches[-1].reason}")
    if not hits:
        return _once_more(situation, question, searches) or Say(f"{NOTHING_FOUND} in the documents about: {question}")
    reads = situation.outcomes_of(READ)
    if not reads and situation.tool(READ) and (worth := _affordable(situation, hits)):
        return Do(tuple(Request(READ, {"id": hit.id}) for hit in worth))
    return Say(_answer(question, hits, reads))


def _search(situation: Situation, query: str) -> Do:
    tool = situation.tool(SEARCH)
    takes_limit = tool is not None and "limit" in tool.parameters.get("properties", {})
    room = _room(situation) - situation.said
    limit = max(1, min(MOST_HITS, room // HIT_TOKENS))
    return Do((Request(SEARCH, {"query": query, **({"limit": limit} if takes_limit else {})}),))


def _affordable(situation: Situation, hits: list[_Hit]) -> list[_Hit]:
    """Picks the best hits whose documents there is room to read."""
    price = READ_TOKENS + NEIGHBOURS * max(estimated_tokens(hit.text) for hit in hits)
    return hits[: max(0, min(MOST_READ, _room(situation) // price))]


def _room(situation: Situation) -> int:
    """Returns the tokens that may come to the next prompt, before it is shortened to keep the answer's share free."""
    answer = max(ANSWER_TOKENS, min(MOST_ANSWER, situation.room // ANSWER_SHARE))
    return situation.room - situation.said - answer


def _once_more(situation: Situation, question: str, searches: list[Outcome]) -> Do | None:
    query = keywords(question)
    is_new = bool(query) and query != searches[-1].call.arguments.get("query")
    is_possible = len(searches) < MOST_SEARCHES and situation.tool(SEARCH) is not None
    return _search(situation, query) if is_new and is_possible else None


def _hits(outcome: Outcome) -> list[_Hit] | None:
    """Reads the hits of a search, each document once; None when they are not what a search gives."""
    listed = outcome.value.get("hits") if isinstance(outcome.value, dict) else None
    if not isinstance(listed, list):
        return None
    hits: dict[str, _Hit] = {}
    for entry in listed:
        if isinstance(entry, dict) and entry.get("id"):
            hits.setdefault(str(entry["id"]), _Hit(entry["id"], _source(entry), str(entry.get("text") or "")))
    return list(hits.values())


def _source(document: JsonObject) -> str:
    return str(document.get("source") or document.get("title") or document.get("id"))


def _answer(question: str, hits: list[_Hit], reads: list[Outcome]) -> str:
    passages: list[Passage] = []
    failures: list[str] = []
    found = {str(hit.id): hit for hit in hits}
    for read in reads:
        hit = found.get(str(read.call.arguments.get("id")))
        if isinstance(read.value, dict) and isinstance(read.value.get("text"), str):
            passages.append(Passage(hit.source if hit else _source(read.value), read.value["text"]))
        elif hit and not read.is_shortened:
            failures.append(f"{hit.source} could not be read, only the excerpt that the search gave: {read.reason}")
    extracts = extract(question, [*passages, *(Passage(hit.source, hit.text) for hit in hits)])
    if not extracts:
        return "\n\n".join([f"{NOTHING_FOUND} in the documents about: {question}", *failures])
    return with_sources("\n\n".join([bullets(extracts), *failures]), [each.source for each in extracts])
