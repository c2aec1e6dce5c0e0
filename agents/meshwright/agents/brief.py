"""A brief for the person who is asked: what was asked, what was done, what is open; in the task's own words. Pure."""

import json
from collections import Counter
from collections.abc import Sequence

from meshwright.agents.extract import Passage, extract
from meshwright.agents.models.model import Message

MOST_CHARS = 2_000
_ASKED, _SAID, _OPEN, _CALLS = 600, 400, 400, 12
_READ = 20_000
_SENTENCES = 3


def brief(prompt: str, messages: Sequence[Message], still_open: str) -> str:
    """Sums up a task as it stands: one line each for what was asked, done, said last and is open.

    Args:
        prompt: The task's.
        messages: Since the prompt.
        still_open: What a person is needed for.

    Returns:
        At most `MOST_CHARS` characters. Nothing in it is made up: sentences are quoted, calls are counted. No text that
        is quoted can begin a line of its own.
    """
    said = next((one.text for one in reversed(messages) if one.role == "assistant" and one.text.strip()), "")
    parts = {
        "Asked": telling(prompt, _ASKED),
        "Done": done(messages) or "nothing yet",
        "Said": opening(said, _SAID),
        "Open": opening(still_open, _OPEN),
    }
    return "\n".join(f"{name}: {text}" for name, text in parts.items() if text)[:MOST_CHARS]


def telling(text: str, most: int) -> str:
    """Keeps a text that is short, and of a long one the sentences that say most, in reading order."""
    plain = " ".join(text[:_READ].split())
    if len(plain) <= most:
        return plain
    chosen = [one.sentence for one in extract("", [Passage("", text[:_READ])], most=_SENTENCES)]
    chosen = sorted({" ".join(one.split()) for one in chosen}, key=plain.find)
    return opening(" … ".join(chosen) or plain, most)


def opening(text: str, most: int) -> str:
    """Cuts a text to one line."""
    plain = " ".join(text[: 2 * most].split())
    return plain if len(plain) <= most and len(text) <= 2 * most else plain[: most - 2].rstrip() + " …"


def done(messages: Sequence[Message]) -> str:
    """Counts calls by tool and by how they ended."""
    tools = {call.call_id: call.tool for message in messages for call in message.calls}
    ends: Counter[str] = Counter()
    for message in messages:
        tools |= {call.call_id: call.tool for call in message.calls}
        if message.role == "tool":
            reason = reason_of(message.text)
            ends[f"{tools.get(message.call_id, 'a tool')} {'failed (' + reason + ')' if reason else 'ok'}"] += 1
    listed = [f"{end} x{many}" if many > 1 else end for end, many in ends.most_common(_CALLS)]
    return ", ".join([*listed, *(["and more"] if len(ends) > _CALLS else [])])


def reason_of(text: str) -> str:
    """Returns the reason of a failed call; empty: it did not fail."""
    if not text.startswith('{"error"'):
        return ""
    try:
        error = json.loads(text[:_READ])["error"]
        return str(error["reason"])[:64]
    except (ValueError, KeyError, TypeError):
        return ""
