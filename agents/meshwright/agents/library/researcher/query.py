"""A question in anyone's words as an expression that SQLite's full-text search understands."""

import re
import unicodedata
from collections.abc import Iterator

from meshwright.agents.sentences import STOP_WORDS

MOST_TERMS = 32
"""Different words of a question that are searched for."""
MOST_CHARACTERS = 8_192
"""Characters of a question that are looked at."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 - typographic apostrophes stand inside words
_APOSTROPHE = re.compile("['’]")  # noqa: RUF001


def match_expression(question: str) -> str:
    """Builds an FTS5 expression that finds passages with any of the question's words.

    Only letters and digits of the question reach the expression, each word in quotes, so that nothing in it is read as
    query syntax. Stop words count only when there are no others.

    Args:
        question: Any text, hostile ones included.

    Returns:
        At most `MOST_TERMS` quoted words joined by OR; empty when the question holds no word.
    """
    text = unicodedata.normalize("NFC", question[:MOST_CHARACTERS])
    found = [match.group().lower().replace("’", "'") for match in _WORD.finditer(text)]  # noqa: RUF001
    telling = [word for word in found if word not in STOP_WORDS] or found
    terms = list(dict.fromkeys(part for word in telling for part in _parts(word)))
    return " OR ".join(f'"{term}"' for term in terms[:MOST_TERMS])


def _parts(word: str) -> Iterator[str]:
    """Yields the word, or what is around its apostrophes but for single letters: `store's` gives `store`."""
    parts = _APOSTROPHE.split(word)
    yield from (part for part in parts if len(part) > 1 or len(parts) == 1)
