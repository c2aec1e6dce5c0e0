"""A whole mesh as a user starts it: `meshwright dev` as a process of its own."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshwright.cli import ports
from tests.answer import Answer
from tests.conftest import Mesh
from tests.e2e.workers import Workers

HERE = Path(__file__).parent
MESHWRIGHT = [sys.executable, "-m", "meshwright.cli.main"]
JSON = {"content-type": "application/json"}
START_S = 45.0

DOCUMENTS = {
    "fence.md": "# Fences\n\nA fence is a counter with random bits. A stale worker cannot write: its fence is old.\n",
    "lease.md": "# Leases\n\nA worker owns a task by a lease of fifteen seconds. It renews it while it is alive.\n",
    "edge.txt": "The edge is a real Envoy. It serves JSON, gRPC and Server-Sent Events on one port.\n",
}


class Dev:
    """A running `meshwright dev`."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.folder = folder
        self.port = port
        self.ready_file = folder / "ready.json"
        self.arguments = [
            "dev",
            "--port",
            str(port),
            "--data",
            str(folder / "data"),
            "--ready-file",
            str(self.ready_file),
        ]
        self.arguments += arguments
        self.process: subprocess.Popen[str] | None = None
        self.headers: dict[str, str] = {}
        """What every request of this class sends along."""

    def start(self) -> "Dev":
        self.process = subprocess.Popen(
            [*MESHWRIGHT, *self.arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE
        )
        ends = time.monotonic() + START_S
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.process.terminate()
                out, err = self.process.communicate(timeout=25)
                raise AssertionError(f"the mesh did not start: {out} {err}")
            time.sleep(0.05)
        return self

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=25)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with self.stream(method, path, body, **headers) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @contextlib.contextmanager
    def stream(self, method: str, path: str, body: Any = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        data = body
        if body is not None and not isinstance(body, str | bytes):
            data, sent = json.dumps(body), JSON | sent
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, sent)
            yield connection.getresponse()
        finally:
            connection.close()

    def finished(self, task_id: str) -> Any:
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            answer = self.request("GET", f"/v1/tasks/{task_id}")
            if answer.status == 503:  # cut off with the agent that was asked: a client asks again
                continue
            task = answer.json
            if task["status"] not in ("TASK_STATUS_PENDING", "TASK_STATUS_RUNNING"):
                return task
            time.sleep(0.05)
        raise AssertionError(f"task {task_id} did not end")


def frames(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    """Reads Server-Sent Events."""
    frame: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\n")
        if not line and frame:
            yield frame
            frame = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Reads the events of a stream of Server-Sent Events."""
    for frame in frames(response):
        if "data" in frame:
            yield json.loads(frame["data"])


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return not Path("/proc").is_dir()
        return False


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> Iterator[Dev]:
    """One mesh for all tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("dev")
    agents = [part for name in ("slow", "asking") for part in ("--agent", f"{HERE / 'agents.py'}:{name}")]
    port = ports.reserve("127.0.0.1", set())
    tools = ["--tools", str(HERE / "letters.py")]
    running = Dev(folder, port, "--docs", str(documents), *agents, *tools, "--lease", "2")
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
async def workers(mesh: Mesh) -> AsyncIterator[Workers]:
    """Starts processes of agents in a mesh of the test."""
    opened = Workers(mesh.url, mesh.target)
    yield opened
    await opened.close()
