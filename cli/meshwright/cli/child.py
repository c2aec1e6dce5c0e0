"""A child process of `meshwright dev`: started, watched, started again on its old port."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.cli import tether
from meshwright.core.errors import SetupError

READY_S = 60.0
STOP_S = 10.0
CALM_S = 30.0
"""A child that lived this long starts again at once."""
BACK_OFF_S = (0.1, 0.3, 1.0, 2.0, 5.0)
TETHER = (sys.executable, "-I", "-S", str(tether.__file__))


@dataclass(slots=True)
class Child:
    """One process of the mesh.

    Attributes:
        name: As in the ready file: `store`, `registry`, `gateway`, `envoy`, or an agent's id.
        command: Program and arguments.
        environment: All of its environment.
        folder: Working directory.
        log: File that takes its stderr.
        speaks: Whether it tells in one line of JSON on stdout that it is ready.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    speaks: bool = True
    target: str = ""
    restarts: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None
    _copying: asyncio.Task[None] | None = None
    _is_stopping: bool = False

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
            self._process = await asyncio.create_subprocess_exec(
                *TETHER,
                *self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self.speaks else log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its children in order
            )
        if self.speaks:
            await self._wait_until_ready(self._process)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                while not (line := await self._said(process.stdout)).startswith(b'{"'):
                    if not line:
                        await process.wait()
                        raise SetupError(self.last_words())
        except TimeoutError:
            process.kill()
            raise SetupError(f"{self.name} was not ready within {READY_S:.0f} s: see {self.log}") from None
        self.facts = json.loads(line)
        self.target = str(self.facts["target"])
        self._copying = asyncio.create_task(self._copy(process.stdout))

    async def _said(self, stdout: asyncio.StreamReader) -> bytes:
        """Reads one line of what the process prints, which belongs into its log; empty: there is no more."""
        try:
            line = await stdout.readline()
        except ValueError:  # longer than a line may be
            line = b"(a line that is too long)\n"
        if line and not line.startswith(b'{"'):
            with self.log.open("ab") as log:
                log.write(line)
        return line

    async def _copy(self, stdout: asyncio.StreamReader) -> None:
        while await self._said(stdout):
            pass

    def last_words(self) -> str:
        """Returns the line in which the process said why it ended."""
        tail = self.log.read_bytes()[-8192:].decode(errors="replace").splitlines()
        said = next((line for line in reversed(tail) if line.startswith("error: ")), "")
        return said.removeprefix("error: ") or f"{self.name} ended at once: see {self.log}"

    async def keep(self, on_change: Callable[[str], None]) -> None:
        """Waits for the process to end and starts it again, until it is stopped; tells what happened each time."""
        failures = 0
        while self._process:
            started = time.monotonic()
            await self._process.wait()
            if self._is_stopping:
                return
            on_change(f"{self.name} (pid {self._process.pid}) ended: {ending(self._process.returncode)}")
            failures = 0 if time.monotonic() - started > CALM_S else failures + 1
            await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)] if failures else 0)
            self.restarts += 1
            try:
                await self.start()
            except SetupError as error:
                on_change(f"{self.name} did not start: {error.message}")
            else:
                on_change(f"{self.name} runs again as pid {self.pid}")

    async def stop(self) -> None:
        """Ends the process: kindly, then by force."""
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def ending(code: int | None) -> str:
    """Says how a process ended."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
