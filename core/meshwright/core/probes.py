"""The port for probes: health in plain text on a port of its own, for whoever has no certificate, such as a kubelet."""

import grpc
from grpc_health.v1 import health_pb2

from meshwright.core.errors import SetupError

LIVENESS = "liveness"
"""The name to ask for whether the process still turns; the empty name asks whether it takes new calls."""
MOST_AT_ONCE = 32
"""Probes that are answered at once; more are refused."""
OPTIONS = (
    ("grpc.max_receive_message_length", 1_024),
    ("grpc.max_metadata_size", 4_096),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.so_reuseport", 0),  # a taken port must be an error
)


class Probes:
    """Answers `grpc.health.v1.Health/Check`, and nothing else: no stream, no reflection, no other service.

    A probe of `liveness` is answered SERVING as long as the process answers at all, while it drains too; one of the
    empty name only while new calls are taken. Other names are NOT_FOUND.

    Args:
        address: Where to listen: an IP address, or a host name.
        port: Which port; 0: a free one.
    """

    def __init__(self, address: str, port: int) -> None:
        self._host, self._port = address, port
        self.is_serving = False
        self.target = ""
        check = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        self._server = grpc.aio.server(handlers=(handler,), options=OPTIONS, maximum_concurrent_rpcs=MOST_AT_ONCE)

    async def start(self) -> None:
        """Listens.

        Raises:
            SetupError: The port is taken, or the address is not of this machine.
        """
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            listening = self._server.add_insecure_port(f"{address}:{self._port}")
        except RuntimeError:
            raise SetupError(
                f"health port {self._port} on {self._host} cannot be used: choose another one by "
                "MESHWRIGHT_HEALTH_PORT, or another address by MESHWRIGHT_HEALTH_HOST"
            ) from None
        await self._server.start()
        self.target = f"{address}:{listening}"

    async def _check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: "grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]",
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in {"", LIVENESS}:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"ask for '' or '{LIVENESS}'")
        serves = self.is_serving or request.service == LIVENESS
        status = health_pb2.HealthCheckResponse.SERVING if serves else health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status)

    async def stop(self) -> None:
        """Closes the port at once."""
        await self._server.stop(None)
