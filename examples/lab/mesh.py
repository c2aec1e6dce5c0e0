"""A mesh of the lab's own, on free ports of this machine, for as long as somebody needs it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshwright.core.errors import SetupError

LAB = Path(__file__).parent
LIMITS = LAB / "k8s" / "limits.env"
START_S, STOP_S = 60.0, 30.0
POLL_S = 0.05


def settings(file: Path) -> dict[str, str]:
    """Reads a file of settings: `NAME=VALUE` a line, as shells, kubectl and containers read it."""
    lines = (line.strip() for line in file.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def free_port() -> int:
    """Returns a port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(model: str) -> Iterator[str]:
    """Runs a mesh with the coordinator and the lab's limits; yields the URL of its edge, and leaves nothing behind.

    Raises:
        SetupError: It does not start; says why.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        port, ready, log = free_port(), Path(folder) / "ready.json", Path(folder) / "mesh.log"
        command = [sys.executable, "-m", "meshwright.cli.main", "dev", "--port", str(port), "--model", model]
        command += ["--data", folder, "--ready-file", str(ready), "--agent", f"{LAB / 'coordinator.py'}:agent"]
        with log.open("w") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | settings(LIMITS))
        try:
            _wait(process, ready, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
    ends = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > ends:
            last = log.read_text().strip().rpartition("\n")[2]
            raise SetupError(f"the mesh does not start: {last.removeprefix('error: ') or 'it takes too long'}")
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
