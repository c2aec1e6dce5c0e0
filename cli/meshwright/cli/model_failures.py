"""What agents' logs say of failing models, for whoever runs a mesh in a terminal: callers are told no addresses."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

LOOK_S = 0.5
MOST_BYTES = 2**20
"""Bytes of a log that are read at one look."""
MOST_TOLD = 100
"""Sentences that are told; each is told once."""
EVENT = b'"model_failed"'


class ModelFailures:
    """Follows logs from their present end.

    Args:
        logs: Files, which need not be there yet.
        tell: Takes a sentence: who failed, where, why, and what to do.
    """

    def __init__(self, logs: Iterable[Path], tell: Callable[[str], None]) -> None:
        self._read = {log: log.stat().st_size if log.exists() else 0 for log in logs}
        self._tell = tell
        self._told: set[str] = set()

    async def watch(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Tells what has been written since the last look."""
        for log in self._read:
            with contextlib.suppress(OSError):  # no log, or nobody listens any more
                for line in self._lines(log):
                    self._tell_once(told(line) if EVENT in line else "")

    def _lines(self, log: Path) -> list[bytes]:
        """Reads whole lines; what is longer than a look is passed over."""
        with log.open("rb") as file:
            file.seek(self._read[log])
            data = file.read(MOST_BYTES)
        end = len(data) if len(data) == MOST_BYTES and b"\n" not in data else data.rfind(b"\n") + 1
        self._read[log] += end
        return data[:end].splitlines()

    def _tell_once(self, sentence: str) -> None:
        if sentence and sentence not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(sentence)
            self._tell(sentence)


def told(line: bytes) -> str:
    """Reads a line of a log; empty: it tells of no failing model."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict) or said.get("event") != "model_failed":
        return ""
    advice = f"; {said['advice']}" if said.get("advice") else ""
    return f"{said.get('service')}: the model {said.get('model')} at {said.get('server')}: {said.get('error')}{advice}"
