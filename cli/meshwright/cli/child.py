"""A child process of `meshwright dev`: started, watched, started again on its old port."""

import asyncio
import contextlib
import json
import re
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.core.errors import MeshError, SetupError
from meshwright.core.process import signal_to
from meshwright.core.tether import tethered

READY_S = 60.0
STOP_S = 10.0
CALM_S = 30.0
"""A child that lived this long starts again at once."""
BACK_OFF_S = (0.1, 0.3, 1.0, 2.0, 5.0)
POLL_S = 0.03
LAST_WORDS = (
    re.compile(r"^error: (?P<why>.+)"),
    re.compile(r"\[critical\].* error `(?P<why>[^`]+)`"),  # Envoy
    re.compile(r"^\d+:\w [^#*]+ # (?!WARNING)(?P<why>.+)"),  # Valkey
)
"""How programs say why they end, the plainest first."""
DISK = ": is the disk full?"


@dataclass(slots=True)
class Child:
    """One process of the mesh.

    Attributes:
        name: As in the ready file: `store`, `registry`, `gateway`, `envoy`, an agent's id, or a file of tools.
        command: Program and arguments.
        environment: All of its environment.
        folder: Working directory.
        log: File that takes its stderr.
        speaks: Whether it tells in one line of JSON on stdout that it is ready.
        answers: Asks whether it is ready one that does not speak; None: it is at once.
        stop_s: How long it may take to end once it is asked to.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    speaks: bool = True
    answers: Callable[[], Awaitable[bool]] | None = None
    stop_s: float = STOP_S
    target: str = ""
    restarts: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None
    _copying: asyncio.Task[None] | None = None
    _is_stopping: bool = False
    _log_start: int = 0

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            SetupError: It ended instead; with the line in which it said why.
        """
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *tethered(*self.command),
                cwd=self.folder,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self.speaks else log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its children in order
            )
        try:
            async with asyncio.timeout(READY_S):
                if self.speaks:
                    await self._wait_until_told(self._process)
                elif self.answers:
                    await self._wait_until_answered(self._process, self.answers)
        except TimeoutError:
            signal_to(self._process, signal.SIGKILL)
            await self._process.wait()
            raise SetupError(f"{self.name} was not ready within {READY_S:.0f} s: see {self.log}") from None

    async def _wait_until_told(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while not (facts := facts_in(line := await self._said(process.stdout))):
            if not line:
                await process.wait()
                raise self._unready()
        self.facts = facts
        self.target = str(facts["target"])
        self._copying = asyncio.create_task(self._copy(process.stdout))

    async def _wait_until_answered(
        self, process: asyncio.subprocess.Process, answers: Callable[[], Awaitable[bool]]
    ) -> None:
        while not await answers():
            if process.returncode is not None:
                raise self._unready()
            await asyncio.sleep(POLL_S)

    async def _said(self, stdout: asyncio.StreamReader) -> bytes:
        """Reads one line of what the process prints, which belongs into its log; empty: there is no more."""
        try:
            line = await stdout.readline()
        except ValueError:  # longer than a line may be
            line = b"(a line that is too long)\n"
        if line and not facts_in(line):
            with self.log.open("ab") as log:
                log.write(line)
        return line

    async def _copy(self, stdout: asyncio.StreamReader) -> None:
        while await self._said(stdout):
            pass

    def _unready(self) -> SetupError:
        """Says why the process ended in place of being ready."""
        return SetupError(self.last_words() or f"{self.name} ended at once: see {self.log}")

    def last_words(self) -> str:
        """Returns the line in which the process said why it ended; empty: it said nothing."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, 2) - 8192))
            tail = log.read().decode(errors="replace").splitlines()
        for pattern in LAST_WORDS:
            said = next((found["why"] for line in reversed(tail) if (found := pattern.search(line))), "")
            if said:
                return said.strip().rstrip(".") + (DISK if "AOF write error" in said else "")
        return ""

    async def keep(self, on_change: Callable[[str], None]) -> None:
        """Waits for the process to end and starts it again, until it is stopped; tells what happened each time.

        However often it does not start: it is tried again, later each time, since what is in the way may go away.
        """

        def tell(what: str) -> None:
            with contextlib.suppress(OSError):  # nobody listens any more, or the disk is full
                on_change(f"{self.name} {what}")

        failures, started, has_run = 0, time.monotonic(), True
        while self._process:
            if has_run:
                await self._process.wait()
                if self._is_stopping:
                    return
                failures = 0 if time.monotonic() - started > CALM_S else failures + 1
                tell(f"(pid {self._process.pid}) ended: {self._ending()}")
            await asyncio.sleep(pause(failures))
            if self._is_stopping:
                return
            self.restarts += 1
            started, has_run = time.monotonic(), False
            try:
                await self.start()
            except (MeshError, OSError) as error:
                failures += 1
                why = error.message if isinstance(error, MeshError) else str(error)
                tell(f"did not start: {why}; trying again in {pause(failures):g} s")
            else:
                has_run = True
                tell(f"runs again as pid {self.pid}")

    def _ending(self) -> str:
        code = self._process.returncode if self._process else None
        if not code or code < 0:
            return ending(code)
        with contextlib.suppress(OSError):
            return f"{ending(code)}: {self.last_words() or f'see {self.log}'}"
        return ending(code)

    async def stop(self) -> None:
        """Ends the process: kindly, then by force."""
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        signal_to(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.stop_s):
                await process.wait()
        except TimeoutError:
            signal_to(process, signal.SIGKILL)
            await process.wait()


def facts_in(line: bytes) -> dict[str, str]:
    """Reads the line in which a process tells that it is ready; empty: it is something else that it prints."""
    with contextlib.suppress(ValueError):
        facts = json.loads(line) if line.startswith(b'{"') else {}
        return facts if "target" in facts else {}
    return {}


def pause(failures: int) -> float:
    """Returns how long to wait before the next try, in seconds; longer with each failure in a row."""
    return BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else 0.0


def ending(code: int | None) -> str:
    """Says how a process ended."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
