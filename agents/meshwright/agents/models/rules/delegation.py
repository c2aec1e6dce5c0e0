"""Work handed to other agents: research in parallel, one summary of it, one answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.agents.extract import Passage, sectioned
from meshwright.agents.models.estimate import CHARACTERS_PER_TOKEN
from meshwright.agents.models.model import ToolSpec, estimated_tokens
from meshwright.agents.models.rules.citations import NOTHING_FOUND, Cited, cited, passages_in, quoted, with_sources
from meshwright.agents.models.rules.material import best_of, material_in
from meshwright.agents.models.rules.questions import (
    LONGEST_QUESTION,
    MOST_PARTS,
    sub_questions,
    without_courtesy,
)
from meshwright.agents.models.rules.situation import Do, Move, Outcome, Request, Say, Situation

ASK = "ask."
"""How the names of tools begin that hand work to an agent."""
PERSON = "ask.person"
"""Hands work to nobody: people are for what nobody else can know."""
MOST_MATERIAL = 24_000
"""Characters that are handed to the agent that summarises, fewer when there is little room."""
LEAST_MATERIAL = 400
"""Characters below which a summary is not worth its price."""
RESEARCH_TOKENS = 1_000
"""What the answer to one question costs an agent that researches, at the least."""
SUMMARY_FACTOR = 5
"""Times the material that must fit into our room: a child gets half of what we leave, and reads the material twice."""

_RESEARCHES = re.compile(r"research|\bfind|\bsearch|\bdocument|look(?:s|ing)? up|retriev", re.IGNORECASE)
_SUMMARISES = re.compile(r"summar|condens|\bdigest|shorten", re.IGNORECASE)
_CALLED_FOR = (
    (
        re.compile(r"review|verif|fact-check", re.IGNORECASE),
        re.compile(
            r"(?:review|verify|fact-?check|is it true that|check (?:that|whether|if|these|this|those"
            r"|the (?:following )?(?:claim|statement|answer|summary|fact)s?))\b",
            re.IGNORECASE,
        ),
    ),
    (
        re.compile(r"\bplans?\b|planner|\bsteps\b", re.IGNORECASE),
        re.compile(
            r"(?:plan (?:how |to |the |a |an |my |our |for )|plan:|break down\b"
            r"|(?:make|draw up|write|give me|create) (?:me )?a plan\b)",
            re.IGNORECASE,
        ),
    ),
)
"""What an agent that reviews, or plans, says of itself, and how a prompt begins that is meant for it."""


def asks_agent(name: str) -> bool:
    """Whether a tool hands work to an agent."""
    return name.startswith(ASK) and name != PERSON


@dataclass(frozen=True, slots=True)
class _Reply:
    """What an agent that was asked gave back; `answer` is None when it failed."""

    agent: str
    question: str
    answer: Cited | None
    reason: str

    @property
    def is_finding(self) -> bool:
        return self.answer is not None and bool(self.answer.body) and not self.answer.body.startswith(NOTHING_FOUND)


def delegation(situation: Situation) -> Move | None:
    """Asks the agent that researches, lets the agent that summarises condense its findings, and reports."""
    asked = [outcome for outcome in situation.outcomes if asks_agent(outcome.call.tool)]
    researcher, summariser = _team(situation.tools)
    if not asked:
        return _first(situation, researcher, summariser)
    first = [outcome for outcome in asked if outcome.round == asked[0].round]
    research = [_reply(outcome) for outcome in first]
    later = [_reply(outcome) for outcome in asked if outcome not in first]
    is_research = researcher is not None and asked[0].call.tool == researcher.name
    findings = [reply for reply in research if reply.is_finding]
    room = min(MOST_MATERIAL, CHARACTERS_PER_TOKEN * situation.room // SUMMARY_FACTOR)
    if is_research and findings and summariser and not later and room >= LEAST_MATERIAL:
        return Do((_request(summariser, _brief(situation.task, findings, room)),))
    return Say(_report(situation.task, research, later))


def _team(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec | None, ToolSpec | None]:
    """Picks who researches and who summarises, by what their names and descriptions say."""

    def strength(tool: ToolSpec, wanted: re.Pattern[str]) -> int:
        return 2 * len(wanted.findall(tool.name)) + len(wanted.findall(tool.description))

    agents = [tool for tool in tools if asks_agent(tool.name)]
    lean = {tool.name: strength(tool, _RESEARCHES) - strength(tool, _SUMMARISES) for tool in agents}
    able = [tool for tool in agents if strength(tool, _RESEARCHES) and lean[tool.name] >= 0]
    researcher = max(able, key=lambda tool: lean[tool.name], default=None)
    rest = [tool for tool in agents if strength(tool, _SUMMARISES) and tool is not researcher]
    return researcher, min(rest, key=lambda tool: lean[tool.name], default=None)


def _first(situation: Situation, researcher: ToolSpec | None, summariser: ToolSpec | None) -> Move | None:
    """Hands out the first work: to the agent that the user names or that the prompt calls for, else to research."""
    task = situation.task
    others = [tool for tool in situation.tools if asks_agent(tool.name) and tool not in (researcher, summariser)]
    meant = next((tool for tool in others if _is_named(tool, task)), None) or _called_for(others, task)
    if meant:
        return Do((_request(meant, task),))
    if summariser and (material := material_in(task)):
        is_affordable = SUMMARY_FACTOR * estimated_tokens(task) <= situation.room
        return Do((_request(summariser, task),)) if is_affordable else Say(quoted(best_of(material)))
    if researcher:
        most = max(1, min(MOST_PARTS, situation.room // RESEARCH_TOKENS))
        return Do(tuple(_request(researcher, question) for question in sub_questions(task, most)))
    return None


def _is_named(tool: ToolSpec, task: str) -> bool:
    """Tells whether the user asks for this agent: `ask the reviewer ...`, `@reviewer ...`."""
    agent = re.escape(tool.name.removeprefix(ASK))
    pattern = rf"(?:\b(?:ask|let|have|tell|use)\s+(?:the\s+)?|@){agent}\b"
    return asks_agent(tool.name) and bool(re.search(pattern, task[:LONGEST_QUESTION], re.IGNORECASE))


def _called_for(tools: Sequence[ToolSpec], task: str) -> ToolSpec | None:
    """Finds the agent that reviews, or plans, where the prompt begins by asking for that."""
    plain = without_courtesy(task[:LONGEST_QUESTION])
    for says, begins in _CALLED_FOR:
        if begins.match(plain):
            return next((tool for tool in tools if says.search(f"{tool.name} {tool.description}")), None)
    return None


def _request(tool: ToolSpec, prompt: str) -> Request:
    return Request(tool.name, {"prompt": prompt})


def _brief(question: str, findings: list[_Reply], characters: int) -> str:
    """Writes the question and all findings, an equal share of each, sources kept."""
    head = question[: min(LONGEST_QUESTION, characters // 2)]
    share = (characters - len(head)) // len(findings) - 2
    parts = [_shortened(reply, share) for reply in findings]
    return "\n\n".join([head, *parts])


def _shortened(reply: _Reply, characters: int) -> str:
    """Writes a finding as sections, as many of its lines as fit; as a list, so that no line runs into the next."""
    kept: dict[str, list[str]] = {}
    for passage in passages_in(reply.answer.body if reply.answer else "", reply.agent):
        characters -= len(sectioned([Passage(passage.source, "")])) + 2
        for line in passage.text.splitlines():
            item = f"- {line}"[: None if kept else max(0, characters)]
            if len(item) <= characters:
                kept.setdefault(passage.source, []).append(item)
            characters -= len(item) + 1
    return sectioned(Passage(source, "\n".join(lines)) for source, lines in kept.items())


def _reply(outcome: Outcome) -> _Reply:
    agent = outcome.call.tool.removeprefix(ASK)
    text = outcome.value if isinstance(outcome.value, str) else outcome.text
    answer = None if outcome.error else cited(text)
    return _Reply(agent, str(outcome.call.arguments.get("prompt", "")), answer, outcome.reason)


def _report(task: str, research: list[_Reply], later: list[_Reply]) -> str:
    """Writes the answer: the summary if there is one, else the findings; then what is missing and all sources."""
    findings = [reply for reply in research if reply.is_finding]
    summary = [reply for reply in later if reply.is_finding][-1:]
    told = [*summary, *_overlooked(findings, summary[0])] if summary else findings
    bodies = [_told(reply, is_only=len(told) == 1) for reply in told]
    if not told and any(reply.answer for reply in research):
        bodies = [f"{NOTHING_FOUND} about: {task[:LONGEST_QUESTION]}"]
    missing = _missing(research, later, is_any_found=bool(findings))
    sources = [source for reply in told if reply.answer for source in reply.answer.sources]
    if not sources:
        sources = [source for reply in findings if reply.answer for source in reply.answer.sources]
    return with_sources("\n\n".join([*bodies, *missing]), sources)


def _overlooked(findings: list[_Reply], summary: _Reply) -> list[_Reply]:
    """Picks the findings of which the summary kept no line: their questions would go without an answer."""
    kept = set(_lines(summary))
    return [reply for reply in findings if len(findings) > 1 and not kept & set(_lines(reply))]


def _lines(reply: _Reply) -> list[str]:
    body = reply.answer.body if reply.answer else ""
    return [line.strip() for line in body.splitlines() if line.strip()]


def _told(reply: _Reply, *, is_only: bool) -> str:
    body = reply.answer.body if reply.answer else ""
    return body if is_only else f"{reply.question}\n{body}"


def _missing(research: list[_Reply], later: list[_Reply], *, is_any_found: bool) -> list[str]:
    """Says which questions stayed open, and why."""
    failed = [reply for reply in [*research, *later] if reply.answer is None]
    empty = [reply for reply in research if reply.answer is not None and not reply.is_finding]
    lines = [f"The agent {reply.agent} failed: {reply.reason}" for reply in failed]
    if is_any_found:
        lines += [f"{NOTHING_FOUND} about: {reply.question}" for reply in empty]
    return ["\n".join(lines)] if lines else []
