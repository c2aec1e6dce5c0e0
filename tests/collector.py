"""A collector of spans: what processes send by OTLP, as tests look at it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class Collector(TraceServiceServicer):
    """Takes spans as an OpenTelemetry collector does.

    Attributes:
        endpoint: Where it takes them.
        taken: All that was sent, as text.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.taken: list[str] = []

    def Export(  # noqa: N802 - the name of the method
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.take(request)
        return ExportTraceServiceResponse()

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keeps what was sent; others look closer."""
        self.taken.append(str(request))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves on a free port."""
        server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, server)
        self.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield
        finally:
            server.stop(None).wait()
