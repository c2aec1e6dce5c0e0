"""Checks of the audit: chains in a store or in an exported file, from their first line to their last."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from meshwright.core.audit import AuditReader, Head, Place
from meshwright.core.audit_chain import AuditLine, ChainCheck, Fault, read_line
from meshwright.core.errors import InvalidRequestError

MOST_TRIES = 5
"""How often a chain is read again that was trimmed while it was read."""
LONGEST_LINE = 65_536
"""Characters of one line of an exported file."""
Anchors = Mapping[Place, AuditLine]
"""The last line that is known of each chain, from an earlier export."""
Progress = Callable[[int], None]
"""Told of lines that were checked."""


@dataclass(slots=True)
class Verdict:
    """What was found of one chain.

    Attributes:
        place: Partition and tenant.
        lines: How many were good, from the first on.
        last: The last good one; None: there is none.
        fault: What is wrong first; None: nothing.
        after: The line after the one that does not fit.
        notes: What could not be checked, and why.
    """

    place: Place
    lines: int = 0
    last: AuditLine | None = None
    fault: Fault | None = None
    after: AuditLine | None = None
    notes: list[str] = field(default_factory=list)


class AuditCheck:
    """Checks chains of a store, while a mesh writes on.

    Args:
        reader: Of the store.
        anchors: Lines that an earlier export ended with: they must stand there unchanged, unless they were trimmed.
        progress: Told of lines as they are checked.
    """

    def __init__(self, reader: AuditReader, anchors: Anchors, progress: Progress) -> None:
        self._reader = reader
        self._anchors = anchors
        self._progress = progress

    async def verdicts(self, tenant: str | None, since_ms: int) -> AsyncIterator[Verdict]:
        """Yields what it finds of each chain.

        Args:
            tenant: Whose; None: everybody's.
            since_ms: From this time on, in milliseconds; 0: from the first line on.
        """
        places = await self._reader.places(tenant)
        for place in places:
            yield await self._chain(place, since_ms)
        for place in sorted(self._anchors.keys() - set(places)):
            anchor = self._anchors[place]
            if tenant is None or anchor.named_tenant == tenant:
                yield Verdict(place, fault=Fault(place, "the whole chain is missing", anchor, None))

    async def _chain(self, place: Place, since_ms: int) -> Verdict:
        tries = 0
        while True:
            tries += 1
            head = await self._reader.head(place)
            if not head.is_chain:
                return Verdict(place, fault=Fault(place, "its key holds no chain", None, None))
            verdict = await self._pass(place, since_ms, head)
            is_still = not verdict.fault or (await self._reader.head(place)).first == head.first
            if is_still or tries == MOST_TRIES:  # else lines were trimmed while they were read
                return verdict

    async def _pass(self, place: Place, since_ms: int, head: Head) -> Verdict:
        check, verdict, anchor = ChainCheck(place), Verdict(place), self._anchors.get(place)
        lines = self._reader.lines(place, since_ms)
        async for line in lines:
            verdict.fault = check.take(line) or moved(anchor, line)
            if verdict.fault:
                verdict.after = await anext(lines, None)
                break
            verdict.lines, verdict.last = check.many, line
            self._progress(1)
        if verdict.fault is None:
            newest = await self._reader.head(place)
            verdict.fault = self._ended(check, head, newest, verdict, is_whole=not since_ms)
        return verdict

    def _ended(self, check: ChainCheck, head: Head, newest: Head, verdict: Verdict, *, is_whole: bool) -> Fault | None:
        """Looks at what shows once all lines were taken.

        Args:
            check: Has taken them.
            head: What was known of the chain before.
            newest: What is known of it now.
            verdict: Takes notes.
            is_whole: All lines were taken, not only those from some time on.
        """
        anchor = self._anchors.get(verdict.place)
        if fault := counted(verdict, head, newest):
            return fault
        if anchor and anchor.number > newest.number:
            missing = f"lines {newest.number + 1} to {anchor.number} were exported and are missing"
            return Fault(verdict.place, missing, verdict.last, None)
        if anchor and head.first and anchor.number < head.first.number:
            verdict.notes.append(f"line {anchor.number}, the last that was exported, has been trimmed since")
        if not is_whole:
            verdict.notes.append("lines before that time were not looked at")
            return check.end(head.number) if check.last else None
        return check.beginning() or check.end(head.number)


def counted(verdict: Verdict, head: Head, newest: Head) -> Fault | None:
    """Holds lines against their counter, which no line is ahead of."""
    last = verdict.last
    if not head.number and not head.first:
        return Fault(verdict.place, "it is on the list of chains, and nothing of it is there", None, None)
    if last and last.number > newest.number:
        what = f"its counter says {newest.number}, and line {last.number} is there"
        return Fault(verdict.place, what, last, None)
    if not head.first:
        return Fault(verdict.place, f"lines 1 to {head.number}, the newest, are missing", None, None)
    return None


def moved(anchor: AuditLine | None, line: AuditLine) -> Fault | None:
    """Holds a line against the one that was exported under its number."""
    if anchor is None or anchor.number != line.number or anchor == line:
        return None
    return Fault(line.place, f"line {line.number} is not the one that was exported", anchor, line)


def check_file(texts: Iterable[str], progress: Progress, *, is_partial: bool = False) -> list[Verdict]:
    """Checks the chains of an exported file, each by itself; after a chain's first fault its lines are not looked at.

    Args:
        texts: The file's lines.
        progress: Told of lines as they are checked.
        is_partial: The file was exported from some time on: a chain's first line is taken as it is.

    Raises:
        InvalidRequestError: A line is none; names which.
    """
    checks: dict[Place, tuple[ChainCheck, Verdict]] = {}
    for line in exported(texts):
        check, verdict = checks.setdefault(line.place, (ChainCheck(line.place), Verdict(line.place)))
        if verdict.fault:
            verdict.after = verdict.after or line
            continue
        verdict.fault = check.take(line)
        if not verdict.fault:
            verdict.lines, verdict.last = check.many, line
            progress(1)
    for check, verdict in checks.values():
        missing = None if verdict.fault else check.beginning()
        if missing and is_partial:
            verdict.notes.append("what stood before its first line is not in the file")
        else:
            verdict.fault = verdict.fault or missing
    return [verdict for _, verdict in checks.values()]


def anchors_of(texts: Iterable[str]) -> Anchors:
    """Returns the last line of each chain of an exported file.

    Raises:
        InvalidRequestError: A line is none.
    """
    return {line.place: line for line in exported(texts)}


def exported(texts: Iterable[str]) -> Iterable[AuditLine]:
    """Reads an exported file.

    Raises:
        InvalidRequestError: A line is none; names which.
    """
    for number, text in enumerate(texts, 1):
        if len(text) > LONGEST_LINE:
            raise InvalidRequestError(f"line {number} is too long for an exported audit", fields={"line": str(number)})
        try:
            yield read_line(text)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"line {number}: {error.message}", fields={"line": str(number)}) from None
