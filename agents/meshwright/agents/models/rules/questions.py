"""Questions: stripped of politeness, taken apart, reduced to their keywords."""

import re

from meshwright.agents.sentences import STOP_WORDS

MOST_PARTS = 4
"""Sub-questions that one task is taken apart into."""
LONGEST_QUESTION = 2_000
"""Characters; a longer text is no question that could be taken apart."""

_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey)(?: there)?[\s,.!]+|please,?\s+|(?:can|could|would|will) you\s+(?=\w)|do you know\s+"
    r"|(?:i|we)(?:'d| would)? (?:like|want|need) to know\s+|tell (?:me|us)(?: about)?\s+|kindly\s+|help me\s+)+",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[\s,.]*\b(?:please|thanks|thank you|many thanks)[\s!.]*$", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*•])\s+(.+)$")
_CUT = re.compile(
    r"(?<=\?)\s+|\s*;\s*|,?\s+and\s+(?=(?:also\s+)?(?:what|how|why|when|where|who|whom|whose|which|explain|describe|list"
    r"|find|compare)\b)",
    re.IGNORECASE,
)
_ASKING = re.compile(
    r"(?:and\s+|also\s+)*(?:what|how|why|when|where|who|whom|whose|which|is|are|do|does|did|can|could|should|will|has|have"
    r"|explain|describe|list|find|compare|tell|give|show|name|summari[sz]e)\b",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\b(?:it|its|they|them|their|theirs|he|she|his|this|that|these|those)\b", re.IGNORECASE)
_TERM = re.compile(r"[^\W_]+(?:[-'._][^\W_]+)*")
_FEWEST = 2


def without_courtesy(text: str) -> str:
    """Removes the polite words around a question."""
    plain = _CLOSING.sub("", _OPENING.sub("", text.strip()))
    return plain or text.strip()


def keywords(text: str) -> str:
    """Reduces a question to the words that say what it is about, each one once."""
    found = (match.group() for match in _TERM.finditer(text))
    return " ".join(dict.fromkeys(word for word in found if word.lower() not in STOP_WORDS))


def sub_questions(task: str, most: int = MOST_PARTS) -> list[str]:
    """Takes a question apart into questions that can be answered each on its own.

    List items, sentences, and clauses after `and` or `;` become questions; a clause that refers back (`and how does it
    work?`) stays with the one before.

    Args:
        task: What is asked.
        most: Upper bound for the number of questions, at least 1.

    Returns:
        Questions, the last one holding all that is left; just the task when it asks one thing.
    """
    if len(task) > LONGEST_QUESTION:
        return [task]
    parts = _items(task) or _clauses(without_courtesy(task))
    return [*parts[: most - 1], " ".join(parts[most - 1 :])] if len(parts) > most else parts


def _items(task: str) -> list[str]:
    """Lists the items of a list, each with the words that introduce the list."""
    lines = [line for line in task.splitlines() if line.strip()]
    items = [match.group(1).strip() for line in lines if (match := _ITEM.match(line))]
    if len(items) < _FEWEST:
        return []
    lead = without_courtesy(lines[0]) if not _ITEM.match(lines[0]) else ""
    return [f"{lead} {item}".strip() for item in items]


def _clauses(question: str) -> list[str]:
    spans: list[tuple[int, int]] = []
    start = 0
    for end, following in [*(match.span() for match in _CUT.finditer(question)), (len(question), len(question))]:
        if spans and not _stands_alone(question[start:end]):
            spans[-1] = (spans[-1][0], end)
        elif question[start:end].strip():
            spans.append((start, end))
        start = following
    if len(spans) > 1 and len(question[slice(*spans[0])].split()) < _FEWEST:
        spans[:2] = [(spans[0][0], spans[1][1])]
    return [question[slice(*span)].strip() for span in spans] or [question]


def _stands_alone(clause: str) -> bool:
    is_question = bool(_ASKING.match(clause.strip())) or clause.rstrip().endswith("?")
    return is_question and len(clause.split()) >= _FEWEST and not _REFERENCE.search(clause)
