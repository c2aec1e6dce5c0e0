"""Calls that change something, after content that others wrote may have asked for them. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from meshwright.agents.guardrails.guardrail import ALLOW, Point, Subject, Verdict
from meshwright.agents.guardrails.leaves import END, NAME_END
from meshwright.agents.guardrails.normalise import visible

_HOST = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,4}\.[a-z]{2,12}(?:[:/].*)?")
_ACCOUNT = re.compile(r"\d(?:[ -]?\d){7,30}")
_AROUND = "<>()[]{}\"',;.!?"
LEAST_LETTERS, LEAST_DIGITS = 4, 3
"""Characters of a value that is no coincidence."""
_BETWEEN = re.compile("[ -]")
_SEPARATOR = re.compile(r"[._]")


@dataclass(frozen=True)
class Effects:
    """Has a person asked before a call that changes something, where content of others may be behind it.

    That is so, for tools that are not pure, after a guardrail has asked for care with something that was read; where
    what was read names the tool; where an address in the arguments (mail, web, account) stands in what was read and
    not in the task; and, for non-idempotent tools, where any value does. Rules in `approvals` of the agent take the
    place of all but the first.

    Attributes:
        strict: Asks before every call of a non-idempotent tool once anything of others was read, as
            `approvals={"*": "when_tainted"}` does for every tool.
        name: In the journal.
    """

    strict: bool = False
    name: str = "effects"
    points: Sequence[Point] = field(default=("tool_arguments",), init=False)

    def check(self, subject: Subject) -> Verdict:
        """Decides on one call."""
        why = self._why(subject)
        return Verdict("ask", why) if why else ALLOW

    def _why(self, subject: Subject) -> str:
        """Says why a person is asked; empty: nobody is."""
        if subject.effect not in ("idempotent", "non_idempotent"):
            return ""
        if subject.is_suspect:
            return f"{subject.tool} changes something, and what was read before gives orders to the model"
        if not subject.is_tainted or subject.approval:
            return ""
        if self.strict and subject.effect == "non_idempotent":
            return f"{subject.tool} changes something, after content that others wrote"
        return chosen_by_others(subject)


def chosen_by_others(subject: Subject) -> str:
    """Says what of a call comes from what was read; empty: nothing that tells."""
    if not subject.untrusted:
        return ""
    read, trusted = [comparable(text) for text in subject.untrusted], comparable(subject.trusted)
    if is_named(subject.tool, read) and subject.tool not in trusted:
        return f"what was read before names {subject.tool}"
    is_once = subject.effect == "non_idempotent"
    chosen = (*destinations(subject.text), *(values_of(subject.text) if is_once else ()))
    if any(is_in(one, read) for one in chosen if one not in trusted) or is_account_in(subject, read, trusted):
        return f"what {subject.tool} is called with comes from what was read, not from the task"
    return ""


def is_named(tool: str, read: Sequence[str]) -> bool:
    """Whether a text holds a tool's name, in one of its spellings; a plain word is no name."""
    spellings = {tool, _SEPARATOR.sub("_", tool), _SEPARATOR.sub("__", tool)} if _SEPARATOR.search(tool) else set[str]()
    return any(is_in(spelling, read) for spelling in spellings)


def destinations(text: str) -> Iterator[str]:
    """Finds addresses of mail, web and accounts, in small letters."""
    lowered = comparable(text)
    for word in lowered.split():
        bare = word.strip(_AROUND)
        if "@" in bare or "://" in bare or ("." in bare and _HOST.fullmatch(bare)):
            yield bare
    yield from (match[0] for match in _ACCOUNT.finditer(lowered))


def values_of(text: str) -> Iterator[str]:
    """Returns the values among laid out arguments that are long enough to be no coincidence, in small letters."""
    for piece in comparable(text).split(END):
        value = piece.partition(NAME_END)[2].strip()
        if len(value) >= (LEAST_DIGITS if value.isdigit() else LEAST_LETTERS):
            yield value


def is_account_in(subject: Subject, read: Sequence[str], trusted: str) -> bool:
    """Whether an account in the arguments stands in what was read, in other groups of digits, and not in the task."""
    accounts = [close(match[0]) for match in _ACCOUNT.finditer(comparable(subject.text))]
    fresh = [one for one in accounts if one not in close(trusted)]
    return bool(fresh) and any(one in text for text in map(close, read) for one in fresh)


def close(text: str) -> str:
    """Returns a text without what stands between groups of digits."""
    return _BETWEEN.sub("", text)


def comparable(text: str) -> str:
    """Returns a text in small letters, as a reader sees it: a look-alike is what it looks like."""
    return text.lower() if text.isascii() else visible(text)


def is_in(piece: str, texts: Sequence[str]) -> bool:
    """Whether a piece stands in one of some texts."""
    return any(piece in text for text in texts)
