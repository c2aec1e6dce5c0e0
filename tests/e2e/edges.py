"""An edge on its own: a real Envoy as it is rendered, in front of one server that does what a prompt says."""

import asyncio
import base64
import contextlib
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from google.rpc import status_pb2

from meshwright.core.errors import InvalidRequestError, OverloadedError
from meshwright.core.facts import Facts
from meshwright.core.interceptors import Context
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.config import DESCRIPTORS, Config
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from meshwright.gen.agents.v1.step_event_pb2 import Heartbeat, StepEvent, TextDelta
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from tests.answer import Answer
from tests.ports import free_ports

REPO = Path(__file__).parents[2]
JSON = {"content-type": "application/json"}
LARGE = 3 * 2**20
UNUSED = "127.0.0.1:9"
"""Nobody listens there."""

LIKE_A_FRAME = 'data: {"task_id":"t","sequence":7,"delta":{}}\n\nid: 8\r\n'
HARD = [
    StepEvent(task_id="t", sequence=1, delta=TextDelta(text=LIKE_A_FRAME)),
    StepEvent(task_id="t", delta=TextDelta(text=LIKE_A_FRAME)),
    StepEvent(task_id="t", sequence=4_294_967_295, delta=TextDelta(text=LIKE_A_FRAME * (LARGE // len(LIKE_A_FRAME)))),
    StepEvent(task_id="t", heartbeat=Heartbeat(last_sequence=5)),
    StepEvent(sequence=10, result=TaskResponse(output=LIKE_A_FRAME)),
]
"""Large ones, passing ones, and texts that read as Server-Sent Events do."""


class Obedient(AgentServiceServicer):
    """Does what a prompt says: `wait`, `fail`, `refuse`, `busy`, `large`; or answers with the prompt.

    A stream has a step each tenth of a second, or with `large` such ones as are hard to tell apart.
    """

    def __init__(self) -> None:
        self.open = 0
        self.headers: dict[str, Any] = {}
        """Of the latest health call."""

    async def Health(self, request: HealthRequest, context: Context) -> HealthResponse:  # noqa: N802
        self.headers = dict(context.invocation_metadata() or ())
        return HealthResponse(status=HEALTH_STATUS_SERVING, agent_id=request.agent_id)

    async def RunTask(self, request: TaskRequest, context: Context) -> TaskResponse:  # noqa: N802
        self.open += 1
        try:
            return await self._obey(request)
        finally:
            self.open -= 1

    async def _obey(self, request: TaskRequest) -> TaskResponse:
        if request.prompt == "wait":
            await asyncio.sleep(50)
        if request.prompt == "fail":
            raise RuntimeError("a secret of the inside at 10.1.2.3")
        if request.prompt == "large":
            return TaskResponse(output="x" * LARGE)
        if request.prompt == "refuse":
            raise InvalidRequestError("wrong", fields={"prompt": "is not what was meant"})
        if request.prompt == "busy":
            raise OverloadedError("busy", retry_after_s=3)
        return TaskResponse(status=TASK_STATUS_COMPLETED, output=request.prompt[:100])

    async def StreamSteps(self, request: TaskRequest, context: Context) -> AsyncIterator[StepEvent]:  # noqa: N802
        self.open += 1
        try:
            for event in HARD if request.prompt == "large" else ():
                yield event
            if request.prompt == "large":
                return
            number = 0
            while True:
                number += 1
                yield StepEvent(task_id="t", sequence=number)
                await asyncio.sleep(0.1)
        finally:
            self.open -= 1


class Envoy:
    """A real Envoy as it is rendered; runs while it is entered.

    Args:
        folder: Of its files.
        targets: Endpoints by agent.
        change: Does something to what is rendered, before Envoy reads it.
        settings: Of the gateway, where they are not the defaults; calls of an address are not counted.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[str]] | None = None,
        *,
        change: Callable[[Config], None] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.targets = dict(targets or {})
        self._change = change
        self.port, internal = free_ports(2)
        chosen = {"limit_address": 0, "edge_port": self.port, "internal_port": internal} | settings
        self.settings = GatewaySettings(**chosen)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.launch()
        self.wait()
        return self

    def launch(self) -> None:
        """Starts Envoy: from the thread that outlives it, for it ends with that."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / DESCRIPTORS).write_bytes((REPO / "gen/meshwright/gen" / DESCRIPTORS).read_bytes())
        EnvoyFiles(self.folder).update({name: card(name, some) for name, some in self.targets.items()})
        config = bootstrap.render(self.settings)
        if self._change:
            self._change(config)
        (self.folder / envoy.BOOTSTRAP).write_text(json.dumps(config))
        with (self.folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen(envoy.command(), cwd=self.folder, stderr=log)

    def wait(self) -> None:
        """Waits until the first agent is served."""
        ends = time.monotonic() + 20
        while not self._serves(next(iter(self.targets))):
            is_alive = self._process is not None and self._process.poll() is None
            assert is_alive, (self.folder / "envoy.log").read_text()[-2_000:]
            assert time.monotonic() < ends
            time.sleep(0.03)

    def _serves(self, agent: str) -> bool:
        try:
            return self.request("GET", f"/v1/agents/{agent}/health").status == 200
        except OSError:
            return False

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """Stops Envoy as a user does, so that it writes its log."""
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        with self.opened(method, path, body, **headers) as response:
            return answer_of(response)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.request("POST", path, json.dumps(body).encode(), **(JSON | headers))

    @contextlib.contextmanager
    def opened(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, sent)
            yield connection.getresponse()
        finally:
            connection.close()

    def raw(self, *parts: bytes, timeout_s: float = 20) -> Answer:
        """Sends bytes as they are, and reads what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as sock:

            def send() -> None:
                with contextlib.suppress(OSError):
                    for part in parts:
                        sock.sendall(part)

            sending = threading.Thread(target=send, daemon=True)  # an answer may come before all is sent
            sending.start()
            response = http.client.HTTPResponse(sock)
            response.begin()
            answer = answer_of(response)
            sock.shutdown(socket.SHUT_RDWR)
            sending.join(5)
            return answer


class Edge(Envoy):
    """One with its server; the server's loop has a thread of its own, so that tests may block."""

    def __init__(self, folder: Path, *, change: Callable[[Config], None] | None = None, **settings: Any) -> None:
        super().__init__(folder, change=change, **settings)
        self.agent = Obedient()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        here = self._run(self._serve())
        self.targets = {"orchestrator": [here], "gone": [UNUSED]}
        self.settings = self.settings.model_copy(update={"registry": here, "port": int(here.rpartition(":")[2])})
        return super().__enter__()

    def fall_silent(self) -> None:
        """Stops the server, as an agent and a registry that are away."""
        self._run(self._server.stop())

    async def _serve(self) -> str:
        services = {"agents.v1.AgentService": bound(add_AgentServiceServicer_to_server, self.agent)}
        self._server = Server(Settings(drain_s=0, tracing=False), services)
        return await self._server.start()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._run(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def answer_of(response: http.client.HTTPResponse) -> Answer:
    """Reads a response to its end."""
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def card(agent_id: str, targets: Sequence[str]) -> AgentCard:
    """An agent with its endpoints."""
    endpoints = [Endpoint(instance_id=f"i{number}", target=target) for number, target in enumerate(targets)]
    return AgentCard(agent_id=agent_id, endpoints=endpoints)


def connections(config: Config) -> Config:
    """The HTTP connection manager of the edge's listener."""
    edge = next(one for one in config["static_resources"]["listeners"] if one["name"] == "edge")
    manager: Config = edge["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def framed(message: bytes) -> bytes:
    """Puts gRPC's frame in front of a message."""
    return bytes(1) + len(message).to_bytes(4) + message


@dataclass
class Refusal:
    """How a call failed, in the same words for all kinds of clients."""

    status: int
    code: int
    reason: str
    message: str
    retry_after: str | None
    request_id: str | None
    limit: str | None
    text: str


METHOD = "/agents.v1.AgentService/RunTask"
KINDS = ("json", "grpc", "grpc-web")
CONTENT_TYPES = {"json": "application/json", "grpc": "application/grpc", "grpc-web": "application/grpc-web+proto"}


def sent(kind: str, body: Any) -> bytes:
    """Spells a body for one kind of client: a request's fields, or a message as it is."""
    if kind == "json":
        return body if isinstance(body, bytes) else json.dumps(body).encode()
    return framed(body if isinstance(body, bytes) else TaskRequest(**body).SerializeToString())


def refusal(answer: Answer, kind: str) -> Refusal:
    """Reads why a call failed; fails itself where that is not said as it should be."""
    shown = f"{answer.headers} {answer.body!r}"
    retry, request_id = answer.headers.get("retry-after"), answer.headers.get("x-request-id")
    if kind == "json":
        assert answer.headers["content-type"] == "application/json", shown
        told = answer.json
        info = answer.details["ErrorInfo"]
        assert info["domain"] == "meshwright"
        limit = info.get("metadata", {}).get("limit")
        return Refusal(answer.status, told["code"], info["reason"], told["message"], retry, request_id, limit, shown)
    assert answer.headers["content-type"] == CONTENT_TYPES[kind], shown
    encoded = answer.headers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert str(status.code) == answer.headers["grpc-status"]
    facts = Facts.from_status(status)
    shown, limit = f"{shown} {status}", facts.metadata.get("limit")
    return Refusal(answer.status, status.code, facts.reason, facts.message, retry, request_id, limit, shown)
