"""Material that a prompt carries: text to work on, apart from what is asked about it."""

import re
from dataclasses import dataclass

from meshwright.agents.extract import Extract, Passage, extract, sections
from meshwright.agents.sentences import sentences, words

LONG_TEXT = 600
"""Characters from which a prompt is taken for text to work on."""
SHORT_TEXT = 80
"""The same where the prompt's text is all that there is to work on, and a question stands beside it."""
LONGEST_LEAD = 300
"""Characters of a question before or after the text it is about."""
UNNAMED = "prompt"
"""The source of text that came without one."""

_SUMMARISE = (
    r"summari[sz]\w*|summary|tl;?dr|shorten\w*|condens\w*|digest|boil down|key points?|main points?|gist|sum up|outline"
)
_ASKS_FOR_SUMMARY = re.compile(rf"\b(?:{_SUMMARISE})\b", re.IGNORECASE)
_INSTRUCTION = re.compile(
    rf"\b(?:{_SUMMARISE}|following|below|above|text|material|sentences?|briefly|brief|short)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Material:
    """Text to work on, and what is asked about it (may be empty)."""

    question: str
    passages: tuple[Passage, ...]

    @property
    def subject(self) -> str:
        """What the question is about, without the words that only ask for a summary; empty when it says no more."""
        subject = " ".join(_INSTRUCTION.sub(" ", self.question).split())
        return subject if words(subject) else ""


def material_in(task: str, *, is_all: bool = False) -> Material | None:
    """Finds the text that a prompt is about: below `source:` lines, beside words that ask for a summary, or long.

    Args:
        task: The prompt.
        is_all: Whether there is nothing else to answer from, so that a short text beside a question counts too.
    """
    named = sections(task)
    if any(passage.source for passage in named):
        lead = named[0].text if not named[0].source else ""
        return Material(lead, tuple(passage for passage in named if passage.source))
    question, text = _apart(task)
    is_asked_for = bool(_ASKS_FOR_SUMMARY.search(question)) and bool(text)
    shortest = SHORT_TEXT if is_all and question else LONG_TEXT
    if not (is_asked_for or len(text) >= shortest):
        return None
    return Material(question, (Passage(UNNAMED, text),))


def best_of(material: Material, most: int = 5) -> list[Extract]:
    """Chooses the sentences that answer the question; those that stand for the whole when none does."""
    return extract(material.subject, material.passages, most) or extract("", material.passages, most)


def _apart(task: str) -> tuple[str, str]:
    """Separates the question before or after a text from the text."""
    for mark in (":", "\n"):
        lead, _, rest = task[: LONGEST_LEAD + 1].partition(mark)
        if len(lead) <= LONGEST_LEAD and rest.strip() and _is_lead(lead, mark):
            return lead.strip(), task[len(lead) + 1 :].strip()
    text, _, last = task.rpartition("\n")
    if text and len(last) <= LONGEST_LEAD and (last.rstrip().endswith("?") or _ASKS_FOR_SUMMARY.search(last)):
        return last.strip(), text.strip()
    return "", task


def _is_lead(lead: str, mark: str) -> bool:
    """Tells whether what stands before a colon or a line's end asks about what follows it."""
    is_one_sentence = len(sentences(lead)) <= 1
    return is_one_sentence and bool(_ASKS_FOR_SUMMARY.search(lead) or (mark == "\n" and lead.rstrip().endswith("?")))
