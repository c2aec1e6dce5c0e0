"""The listener that tells metrics: `/metrics` and nothing else, to few at once and within a time."""

import socket
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import make_wsgi_app

PATH = "/metrics"
METHODS = ("GET", "HEAD")
MOST_CONNECTIONS = 16
"""Connections at once; further ones are closed."""
REQUEST_S = 10.0
"""How long a connection may last, however slowly its request arrives or its answer is read."""


class MetricsListener(ThreadingMixIn, WSGIServer):
    """Tells the metrics of this process.

    Args:
        host: Address to listen on, or a name of it.
        port: Which port; 0: a free one.
        request_s: How long a connection may last.

    Raises:
        OSError: It cannot be listened there.
    """

    daemon_threads = True
    request_queue_size = 128
    """Connections that wait to be taken, or closed: beyond these a client knocks again after a second."""

    def __init__(self, host: str, port: int, request_s: float = REQUEST_S) -> None:
        self.address_family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._request_s = request_s
        self._ends: dict[Any, float] = {}
        super().__init__((str(address[0]), port), Quiet)
        self.set_app(only_metrics(make_wsgi_app()))

    def start(self) -> threading.Thread:
        """Serves in a thread of its own, which ends with the process or by `shutdown`."""
        thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        thread.start()
        return thread

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for a connection; one without is closed."""
        return len(self._ends) < MOST_CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, and remembers when it has to be over."""
        self._ends[request] = time.monotonic() + self._request_s
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        self._ends.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cuts connections whose time is over, twice a second at the least: their threads end by that."""
        now = time.monotonic()
        for request, ends in self._ends.copy().items():
            if ends < now:
                cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: whoever asked has left, or was cut."""


class Quiet(WSGIRequestHandler):
    """Reads a request, and logs none."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called there
        """Says nothing."""


def cut(request: socket.socket) -> None:
    """Ends a connection that a thread may be reading or writing."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:  # its thread has just closed it
        return


def only_metrics(metrics: WSGIApplication) -> WSGIApplication:
    """Returns an application that asks another one at `PATH` alone, by `METHODS` alone."""

    def refuse(status: HTTPStatus, start_response: StartResponse) -> Iterable[bytes]:
        start_response(f"{status} {status.phrase}", [("Allow", ", ".join(METHODS)), ("Content-Type", "text/plain")])
        return [f"GET {PATH} is all that is here\n".encode()]

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            return refuse(HTTPStatus.NOT_FOUND, start_response)
        if environ["REQUEST_METHOD"] not in METHODS:
            return refuse(HTTPStatus.METHOD_NOT_ALLOWED, start_response)
        begun: list[Any] = []
        body = b"".join(metrics(environ | {"REQUEST_METHOD": "GET"}, lambda *told: begun.extend(told)))  # type: ignore[arg-type] # nobody writes by it
        status, headers = begun
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []

    return serve
