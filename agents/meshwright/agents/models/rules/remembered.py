"""Questions that pinned facts, or the summary of a conversation, answer."""

from meshwright.agents.extract import Passage, extract
from meshwright.agents.models.rules.situation import Move, Say, Situation

MOST_LINES = 3


def remembered(situation: Situation) -> Move | None:
    """Repeats what is known from earlier in the conversation, where it shares words with the question."""
    lines = (line.removeprefix("- ") for line in situation.known.splitlines() if line.startswith("- "))
    found = extract(situation.task, [Passage("earlier", line) for line in lines], MOST_LINES)
    return Say("From earlier in this conversation: " + " ".join(one.sentence for one in found)) if found else None
