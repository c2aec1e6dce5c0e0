"""A container: a process group that is started, probed, started again and stopped as a kubelet does it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from k8s.rehearsal.manifests import Thing
from k8s.rehearsal.probe import Ask, Probe
from meshwright.core.process import ended
from meshwright.core.tether import tethered

BACK_OFF_S = (0.0, 1.0, 2.0, 5.0)
"""A kubelet waits 10 s before the second start, and twice as long before each further one."""
WEIGHED_S = 0.5


class Container:
    """One container of a pod.

    Args:
        spec: As the manifest has it.
        command: Program and arguments.
        environment: All of it.
        folder: Working directory.
        log: Takes what it prints.
        address: Of the pod.
        is_kept: Whether it is started again when it ends; else only when it fails.
        tell: Takes a line for people.
    """

    def __init__(
        self,
        spec: Thing,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        *,
        address: str,
        is_kept: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.name = str(spec["name"])
        self.restarts = 0
        self.peak_kib = 0
        self.is_done = False
        self._spec, self._command, self._environment = spec, command, environment
        self._folder, self._log, self._is_kept, self._tell = folder, log, is_kept, tell
        ports = {port["name"]: int(port["containerPort"]) for port in spec.get("ports", ())}
        self._probes = {
            word: Probe.of(spec[f"{word}Probe"], address, ports, self._question)
            for word in ("startup", "readiness", "liveness")
            if f"{word}Probe" in spec
        }
        self._is_ready = False
        self._is_stopping = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_ready(self) -> bool:
        """Whether its probes say that it is ready."""
        return self._is_ready and not self._is_stopping

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    @property
    def memory_limit(self) -> str:
        """What the manifest lets it use: 256Mi."""
        return str(self._spec["resources"]["limits"]["memory"])

    async def run(self) -> None:
        """Runs until it is stopped, or, where it is not kept, until it has ended well."""
        while not self._is_stopping:
            code = await self._run_once()
            if self._is_stopping:
                return
            if code == 0 and not self._is_kept:
                self.is_done = True
                return
            self._tell(f"ended with {code} and is started again; see {self._log}")
            await asyncio.sleep(BACK_OFF_S[min(self.restarts, len(BACK_OFF_S) - 1)])
            self.restarts += 1

    async def _run_once(self) -> int:
        self._process = await self._started(*self._command)
        chores = [asyncio.create_task(chore) for chore in (self._watch(), self._weigh())]
        try:
            return await self._process.wait()
        finally:
            self._is_ready = False
            self.signal(signal.SIGKILL)  # what it has started ends with it, as in a container
            await ended(*chores)

    async def _weigh(self) -> None:
        """Measures memory now and then: most containers end before anybody asks."""
        while True:
            await asyncio.sleep(WEIGHED_S)
            self.measure()

    async def _watch(self) -> None:
        """Asks by the three probes: the others wait for the first."""
        if "startup" in self._probes:
            started = asyncio.Event()
            startup = asyncio.create_task(self._probes["startup"].watch(lambda good: self._heard_start(started, good)))
            try:
                await started.wait()
            finally:
                await ended(startup)
        async with asyncio.TaskGroup() as group:
            if "liveness" in self._probes:
                group.create_task(self._probes["liveness"].watch(self._heard_life))
            if "readiness" in self._probes:
                group.create_task(self._probes["readiness"].watch(self._heard_ready))
            else:
                self._heard_ready(True)

    def _heard_start(self, started: asyncio.Event, is_good: bool) -> None:  # noqa: FBT001 - an answer
        if is_good:
            started.set()
        else:
            self._heard_life(is_good)

    def _heard_ready(self, is_good: bool) -> None:  # noqa: FBT001
        self._is_ready = is_good

    def _heard_life(self, is_good: bool) -> None:  # noqa: FBT001
        if not is_good and not self._is_stopping:
            self._tell("does not answer its probe, and is killed")
            self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal: the main process has SIGTERM alone, SIGKILL all that it has started."""
        if self._process is None:
            return
        self.measure()
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            elif self._process.returncode is None:
                os.kill(self._process.pid, number)

    async def stop(self, until: float) -> float:
        """Ends it: preStop, SIGTERM, and SIGKILL when the pod's time is over.

        Args:
            until: When it is over, on the loop's clock.

        Returns:
            How many seconds before that it had ended; 0: it was killed.
        """
        self._is_stopping = True
        try:
            async with asyncio.timeout_at(until):
                await self._before_stop()
                self.signal(signal.SIGTERM)
                if self._process:
                    await self._process.wait()
        except TimeoutError:
            self.kill()
            self._tell("was killed: its grace period is over")
        return max(0.0, until - asyncio.get_running_loop().time())

    def kill(self) -> None:
        """Ends it by force, and for good."""
        self._is_stopping = True
        self.signal(signal.SIGKILL)

    async def _before_stop(self) -> None:
        hook = self._spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
        elif "exec" in hook and not await self._executed(hook["exec"]["command"]):
            self._tell(f"its preStop has failed: see {self._log}")

    def _question(self, command: list[str]) -> Ask:
        def ask() -> Awaitable[bool]:
            return self._executed(command)

        return ask

    async def _executed(self, command: list[str]) -> bool:
        """Runs a command as in the container; one that is not waited for to its end is killed."""
        process = await self._started("/usr/bin/env", *command)
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    async def _started(self, *command: str) -> asyncio.subprocess.Process:
        """Starts a process as in the container, in a group of its own; it does not outlive this one."""
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *tethered(*command),
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def measure(self) -> None:
        """Reads the most memory that its main process has used so far."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            self.peak_kib = max(self.peak_kib, int(status.partition("VmHWM:")[2].split()[0]))
