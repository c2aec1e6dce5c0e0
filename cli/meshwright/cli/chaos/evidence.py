"""Evidence: one line in one file for whatever an agent did, written by the process that did it."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ASKED, ANSWERED = "asked", "answered"
"""A model call that began, and one that was answered, which is what costs money."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What one process did at one moment.

    Attributes:
        what: `asked`, `answered`, or the tool that ran.
        job: For which job.
        step: In which step, from 0.
        pid: By which process.
        at: When, in seconds since the epoch.
        key: The idempotency key of a tool's call.
    """

    what: str
    job: str
    step: int
    pid: int
    at: float
    key: str


def leave(into: str, what: str, job: str, step: int, key: str = "-") -> None:
    """Appends one line at once: the kernel keeps it when this process is killed right after it."""
    line = f"{what} {job} {step} {os.getpid()} {time.time():.6f} {key}\n"
    descriptor = os.open(into, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class Evidence:
    """The file, as far as it was read.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self.traces: list[Trace] = []
        self._read = 0

    def fresh(self) -> Iterator[Trace]:
        """Yields what was written since the last time."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            what, job, step, pid, at, key = line.split(" ")
            trace = Trace(what, job, int(step), int(pid), float(at), key)
            self.traces.append(trace)
            yield trace

    def of(self, job: str) -> list[Trace]:
        """Returns what was done for a job, oldest first."""
        return [trace for trace in self.traces if trace.job == job]

    def counted(self, *what: str) -> Counter[tuple[str, int, str]]:
        """Counts traces of some kinds by job, step and kind."""
        return Counter((trace.job, trace.step, trace.what) for trace in self.traces if trace.what in what)
