"""An instance that passes its health checks and takes no connections while it is deaf."""

import asyncio
import contextlib
from typing import Self

from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckResponse
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthResponse
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskResponse
from tests.e2e.edges import framed

CHECK = "/grpc.health.v1.Health/Check"
ANSWERS: dict[str, Message] = {
    CHECK: HealthCheckResponse(status=HealthCheckResponse.SERVING),
    "/agents.v1.AgentService/Health": HealthResponse(status=HEALTH_STATUS_SERVING),
    "/agents.v1.AgentService/RunTask": TaskResponse(status=TASK_STATUS_COMPLETED, output="heard"),
}
CHUNK = 65536


class Deaf:
    """A server of HTTP/2 on a free port; use it as a context."""

    def __init__(self) -> None:
        self._port = 0
        self._lines: dict[asyncio.StreamWriter, set[str]] = {}

    async def __aenter__(self) -> Self:
        await self.hear()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self._end(list(self._lines))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def hear(self) -> None:
        """Takes connections, from now on or again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def turn_deaf(self) -> None:
        """Takes no more connections, and keeps none but those of health checks."""
        self._server.close()
        self._end([line for line, paths in self._lines.items() if CHECK not in paths])

    def _end(self, lines: list[asyncio.StreamWriter]) -> None:
        for line in lines:
            line.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths = self._lines[writer] = set()
        line = H2Connection(H2Configuration(client_side=False))
        line.initiate_connection()
        asked: dict[int, str] = {}
        with contextlib.suppress(OSError):
            writer.write(line.data_to_send())
            while data := await reader.read(CHUNK):
                for event in line.receive_data(data):
                    if isinstance(event, RequestReceived):
                        asked[event.stream_id] = dict(event.headers)[b":path"].decode()
                        paths.add(asked[event.stream_id])
                    elif isinstance(event, DataReceived):
                        line.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, StreamEnded):
                        answer(line, event.stream_id, ANSWERS[asked.pop(event.stream_id)])
                writer.write(line.data_to_send())
                await writer.drain()
        del self._lines[writer]
        writer.transport.abort()


def answer(line: H2Connection, stream: int, message: Message) -> None:
    """Answers a call of gRPC."""
    line.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    line.send_data(stream, framed(message.SerializeToString()))
    line.send_headers(stream, [("grpc-status", "0")], end_stream=True)
