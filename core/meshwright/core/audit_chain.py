"""A chain of the audit: what a line is, how it hangs on the one before, and what is wrong with a chain. Pure."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from meshwright.core.errors import InvalidRequestError

TRIMMED = "trimmed"
UNREADABLE = "(unreadable)"
"""The event of what stands in a chain and is no line: it has no number, and the hash of itself for a link."""
MOST_NUMBER = 2**53
TEXTS = ("partition", "tenant", "event", "about", "outcome", "link")
NUMBERS = ("number", "time_ms")
NAMES = frozenset({*TEXTS, *NUMBERS, "facts"})
WRITER = json.JSONEncoder(separators=(",", ":"))


def spelled(facts: Mapping[str, object]) -> str:
    """Writes facts as they stand in a line."""
    return WRITER.encode(facts)


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line.

    Attributes:
        partition: Where its chain is: `mesh`, or a number.
        tenant: Whose chain, as keys spell it; empty: of the mesh.
        number: Its place in the chain, from 1.
        time_ms: When, by the store's clock.
        event: What was done.
        about: To what: a task (`principal/id`), a key, a tool.
        outcome: `ok`, a reason, a decision; empty: there is none.
        text: The facts, as they were written.
        link: SHA-1 of the link before it and of all that it says, hex.
    """

    partition: str
    tenant: str
    number: int
    time_ms: int
    event: str
    about: str
    outcome: str
    text: str
    link: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """Who and what, `by` among them; none where somebody wrote something else."""
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def named_tenant(self) -> str:
        """The tenant as it calls itself."""
        return unquote(self.tenant)

    @property
    def place(self) -> tuple[str, str]:
        """Its chain."""
        return self.partition, self.tenant

    def linked(self, before: str) -> str:
        """Returns the link that it has where it follows a line with the link `before`."""
        said = (before, f"{self.time_ms}-{self.number}", self.event, self.about, self.outcome, self.text)
        return hashlib.sha1(" ".join(said).encode(errors="replace"), usedforsecurity=False).hexdigest()

    def told(self) -> dict[str, Any]:
        """Returns it as data for JSON, from which `read_line` makes the same line."""
        return {
            "partition": self.partition,
            "tenant": self.tenant,
            "number": self.number,
            "time_ms": self.time_ms,
            "event": self.event,
            "about": self.about,
            "outcome": self.outcome,
            "facts": self.facts if spelled(self.facts) == self.text else self.text,
            "link": self.link,
        }


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON.

    Raises:
        ValueError: It has a name twice: readers differ in which of the two counts.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands there twice")
    return made


READER = json.JSONDecoder(object_pairs_hook=once)


def is_told(found: Any) -> bool:
    """Whether data is that of a line, as `AuditLine.told` returns it."""
    return (
        isinstance(found, dict)
        and found.keys() == NAMES
        and all(isinstance(found.get(name), str) for name in TEXTS)
        and all(type(found.get(name)) is int and 0 <= found[name] < MOST_NUMBER for name in NUMBERS)
        and isinstance(found.get("facts"), str | dict)
    )


def read_line(text: str) -> AuditLine:
    """Reads a line of an exported file.

    Raises:
        InvalidRequestError: It is none.
    """
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = READER.decode(text.strip())
    if not is_told(found):
        raise InvalidRequestError(
            "this is no line of an exported audit", fields={"line": "as `audit export` writes it"}
        )
    texts, facts = {name: found[name] for name in TEXTS}, found["facts"]
    return AuditLine(
        number=found["number"],
        time_ms=found["time_ms"],
        text=facts if isinstance(facts, str) else spelled(facts),
        **texts,
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a chain is broken first.

    Attributes:
        place: Partition and tenant.
        what: In words.
        before: The last good line; None: there is none.
        line: The first line that does not fit; None: the chain ends here.
    """

    place: tuple[str, str]
    what: str
    before: AuditLine | None
    line: AuditLine | None


class ChainCheck:
    """Takes the lines of one chain, oldest first, and says what is wrong with them.

    A chain begins with its line 1, or after lines that were trimmed: then a later line tells through which number, and
    which link the last of these had. Until that line comes, the first line is taken as it is.

    Args:
        place: Partition and tenant.
    """

    def __init__(self, place: tuple[str, str]) -> None:
        self._place = place
        self._start: AuditLine | None = None
        self._is_proved = False
        self.last: AuditLine | None = None
        self.many = 0

    def take(self, line: AuditLine) -> Fault | None:
        """Takes the next line; returns what is wrong with it."""
        what = self._wrong(line)
        if what:
            return Fault(self._place, what, self.last, line)
        self.last, self.many = line, self.many + 1
        return None

    def _wrong(self, line: AuditLine) -> str:
        if line.place != self._place:
            return "it is a line of another chain"
        if line.event == UNREADABLE:
            return "it is no line of the audit"
        return self._next(line, self.last) if self.last else self._first(line)

    def _next(self, line: AuditLine, last: AuditLine) -> str:
        if line.number > last.number + 1:
            return f"lines {last.number + 1} to {line.number - 1} are missing"
        if line.number <= last.number:
            return f"line {line.number} stands after line {last.number}"
        if line.link != line.linked(last.link):
            return f"it does not follow from line {last.number}: one of the two was changed"
        if line.time_ms < last.time_ms:
            return "it is older than the line before it"
        return self._trimmed(line) if line.event == TRIMMED else ""

    def _first(self, line: AuditLine) -> str:
        self._start, self._is_proved = line, line.number == 1
        if self._is_proved and line.link != line.linked("/".join(self._place)):
            return "it is not what the chain began with"
        return ""

    def _trimmed(self, line: AuditLine) -> str:
        """Holds the first line against what was trimmed before it."""
        assert self._start
        if line.facts.get("through") != self._start.number - 1:
            return ""
        if self._start.link != self._start.linked(str(line.facts.get("link"))):
            return f"line {self._start.number}, the first, does not follow from the lines that were trimmed"
        self._is_proved = True
        return ""

    def end(self, number: int = 0) -> Fault | None:
        """Says what is wrong with the whole once its last line was taken.

        Args:
            number: How many lines there ever were, as the chain's counter said before the first one was read; 0: nobody
                says.
        """
        last = self.last.number if self.last else 0
        if last >= number:
            return None
        return Fault(self._place, f"lines {last + 1} to {number}, the newest, are missing", self.last, None)

    def beginning(self) -> Fault | None:
        """Says whether lines are gone before the first one and nothing tells why, once all lines were taken."""
        if self._start is None or self._is_proved:
            return None
        missing = f"lines 1 to {self._start.number - 1} are missing, and no line says that they were trimmed"
        return Fault(self._place, missing, None, self._start)
