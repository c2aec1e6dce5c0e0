"""The two servers that are compared: bare grpc.aio, and ours around the very same handlers.

`python -m benchmarks.served bare|mesh FOLDER`; FOLDER holds recorded streams, each in a file named as its prompt.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from meshwright.core import process, telemetry
from meshwright.core.errors import KeyNotFoundError
from meshwright.core.grant import Verifier
from meshwright.core.interceptors import Context
from meshwright.core.process import Process
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import TaskRequest, TaskResponse

HEAD = 4


class Echo(AgentServiceServicer):
    """Answers at once, and keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._streams: dict[str, list[StepEvent]] = {}

    async def Health(self, request: HealthRequest, context: Context) -> HealthResponse:  # noqa: N802 - an RPC
        """Returns a constant."""
        return HealthResponse(status=HEALTH_STATUS_SERVING, agent_id=request.agent_id)

    async def RunTask(self, request: TaskRequest, context: Context) -> TaskResponse:  # noqa: N802 - an RPC
        """Is not measured."""
        return TaskResponse()

    async def StreamSteps(  # noqa: N802 - an RPC
        self, request: TaskRequest, context: Context
    ) -> AsyncIterator[StepEvent]:
        """Streams what an agent once said, message by message."""
        if request.prompt not in self._streams:
            self._streams[request.prompt] = recorded(self._folder / request.prompt)
        for event in self._streams[request.prompt]:
            yield event


def record(file: Path, events: list[StepEvent]) -> None:
    """Writes a stream's messages, each behind its length."""
    payloads = [event.SerializeToString() for event in events]
    file.write_bytes(b"".join(len(payload).to_bytes(HEAD) + payload for payload in payloads))


def recorded(file: Path) -> list[StepEvent]:
    """Reads a stream's messages."""
    data, events = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:HEAD])
        events.append(StepEvent.FromString(data[HEAD : HEAD + length]))
        data = data[HEAD + length :]
    return events


async def no_key(key_id: str) -> IssuerKey:
    """Knows nobody: the calls carry no grants."""
    raise KeyNotFoundError(key_id)


async def main(running: Process) -> None:
    """Serves until it is told to stop."""
    kind, echo = sys.argv[1], Echo(Path(sys.argv[2]))
    if kind == "bare":
        bare = grpc.aio.server()
        add_AgentServiceServicer_to_server(echo, bare)
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
        running.ready(target=f"127.0.0.1:{port}")
        await running.stopping.wait()
        await bare.stop(0)
        return
    settings = Settings.load()
    telemetry.configure(settings, "bench", "bench")
    services = {"agents.v1.AgentService": bound(add_AgentServiceServicer_to_server, echo)}
    server = Server(settings, services, Verifier(no_key))
    running.ready(target=await server.start())
    await running.stopping.wait()
    await server.stop()


if __name__ == "__main__":
    process.run(main)
