"""HTML and PDF as headings and paragraphs, read in a limited process: hostile documents end that process, not ours."""

import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Timer

from meshwright.agents.library.researcher.folder import Kind
from meshwright.agents.library.researcher.limits import Limits
from meshwright.agents.library.researcher.markup import Block
from meshwright.agents.library.researcher.skips import SkipError

DOCUMENTS_OF_A_PROCESS = 50
"""Documents after which a fresh process takes over, so that what the parsers leave in memory cannot add up."""

_PROGRAM = Path(__file__).with_name("converter_process.py")
_HEADER = struct.Struct(">I")
_LONGEST_ERROR = 1_024


class Converter:
    """Reads the documents of one kind.

    Its process starts with the first document, gets no environment variables, can write no files and reaches at most
    the memory and processor time of the limits. Not safe for use by several threads at once.

    Args:
        kind: `html` or `pdf`.
        limits: Upper bounds.
    """

    def __init__(self, kind: Kind, limits: Limits) -> None:
        self._kind = kind
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._documents = 0
        self._left_s = limits.kind_s

    def convert(self, data: bytes) -> list[Block]:
        """Reads one document; takes at most `document_s` seconds.

        Args:
            data: The content of the file.

        Raises:
            SkipError: The document is broken, encrypted, or needs more than the limits allow.
        """
        if self._left_s <= 0:
            raise SkipError(f"the time for {self._kind.upper()} documents, {self._limits.kind_s:g} s, is used up")
        start = time.monotonic()
        try:
            result = json.loads(self._answer(data))
        finally:
            self._left_s -= time.monotonic() - start
        if "error" in result:
            raise SkipError(f"cannot be read as {self._kind.upper()}: {result['error']}")
        return [Block(level, text) for level, text in result["blocks"]]

    def close(self) -> None:
        """Ends the process."""
        process, self._process, self._documents = self._process, None, 0
        if process is not None:
            process.kill()
            process.communicate()

    def _answer(self, data: bytes) -> bytes:
        """Has the process read a document."""
        process = self._ready()
        is_late = Event()

        def give_up() -> None:
            is_late.set()
            process.kill()

        killer = Timer(self._limits.document_s, give_up)
        killer.daemon = True
        killer.start()
        try:
            answer = _exchanged(process, data, self._limits.text_bytes)
        except (OSError, EOFError):
            answer = b""
        killer.cancel()
        killer.join()  # or a process killed at the last moment would be blamed on the next document
        if not answer or is_late.is_set():
            self.close()
        if not answer:
            raise SkipError(self._cause(process.returncode, is_late=is_late.is_set()))
        return answer

    def _ready(self) -> subprocess.Popen[bytes]:
        """Returns a process that waits for a document."""
        if self._documents >= DOCUMENTS_OF_A_PROCESS:
            self.close()
        self._documents += 1
        if self._process is None:
            limits = (self._limits.cpu_s, self._limits.memory_bytes, self._limits.text_bytes)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                    [sys.executable, "-I", str(_PROGRAM), self._kind, *map(str, limits)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                )
            except OSError as error:
                raise SkipError(f"no process to read it could be started: {error.strerror}") from None
        return self._process

    def _cause(self, status: int, *, is_late: bool) -> str:
        """Says why a process ended before it answered."""
        if status == -signal.SIGXCPU:
            return f"takes more than {self._limits.cpu_s} s of processor time to read"
        if is_late:
            return f"takes more than {self._limits.document_s:g} s to read"
        return f"ended the process that read it (status {status})"


def _exchanged(process: subprocess.Popen[bytes], data: bytes, most: int) -> bytes:
    """Sends a document and receives the answer; a process that dies meanwhile shows as OSError or EOFError."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_HEADER.pack(len(data)) + data)
    process.stdin.flush()
    header = process.stdout.read(_HEADER.size)
    size = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else 0
    answer = process.stdout.read(size) if size <= most + _LONGEST_ERROR else b""
    if not answer or len(answer) < size:
        raise EOFError
    return answer
