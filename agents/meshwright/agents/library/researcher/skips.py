"""What an index leaves out, and why."""

from typing import NamedTuple


class Skip(NamedTuple):
    """One thing that is left out; `path` is relative to the folder."""

    path: str
    reason: str


class SkipError(Exception):
    """A document cannot be taken in; the message is the reason, one line."""


class Skips:
    """A bounded list of what is left out.

    Args:
        most: Entries kept; further ones are only counted.
    """

    def __init__(self, most: int) -> None:
        self.entries: list[Skip] = []
        self.count = 0
        self._most = most

    def add(self, path: str, reason: str) -> None:
        """Notes one path; characters that steer a terminal or are no Unicode are shown escaped."""
        self.count += 1
        if len(self.entries) < self._most:
            shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in path)
            self.entries.append(Skip(shown, reason))
