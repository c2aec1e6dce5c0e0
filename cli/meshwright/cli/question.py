"""What a task asks of people, in words, and the commands that decide on it."""

import json

from meshwright.core.canonical import from_struct
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_ANSWER,
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_RAISE_BUDGET,
    DECISION_RETRY,
    INPUT_KIND_UNKNOWN_OUTCOME,
    Decision,
    PendingInput,
)

DIGITS = 12
"""So much of a digest is shown, and enough to name it."""
QUOTING = frozenset({DECISION_APPROVE, DECISION_EDIT, DECISION_RETRY})
"""Decisions that let a call run: they quote its digest."""
VALUES = {
    DECISION_ANSWER: ' "…"',
    DECISION_EDIT: " '{…}'",
    DECISION_RAISE_BUDGET: " --cost-budget|--token-budget|--max-steps TOTAL",
}
"""What a decision is told beside its name."""
ENDS = (".", "?", "!", ":", "…")


def told(pending: PendingInput) -> str:
    """Says in one line what is asked: a call as it would run, else the question."""
    if not pending.tool:
        return pending.prompt
    arguments = json.dumps(from_struct(pending.arguments, "arguments"), ensure_ascii=False)
    call = f"{pending.tool}@{pending.tool_version} {arguments}"
    return f"{pending.prompt} ({call})" if pending.kind == INPUT_KIND_UNKNOWN_OUTCOME else call


def sentence(text: str) -> str:
    """Ends a text as a sentence ends."""
    text = text.strip()
    return text if text.endswith(ENDS) else f"{text}."


def word(choice: Decision.ValueType) -> str:
    """Names a decision as the command takes it."""
    return Decision.Name(choice).removeprefix("DECISION_").lower()


def choices(pending: PendingInput) -> str:
    """Names what can be decided, as the command takes it."""
    return "|".join(map(word, pending.choices))


def needs_digest(pending: PendingInput, choice: Decision.ValueType) -> bool:
    """Whether a decision has to quote the digest of the call that it lets run."""
    return bool(pending.intent_digest) and choice in QUOTING


def commands(task_id: str, pending: PendingInput) -> list[str]:
    """Spells the commands that decide on a question, one for each decision."""
    digest = f" --digest {pending.intent_digest[:DIGITS]}"
    return [
        f"meshwright task resolve {task_id} {word(choice)}{VALUES.get(choice, '')}"
        + (digest if needs_digest(pending, choice) else "")
        for choice in pending.choices
    ]
