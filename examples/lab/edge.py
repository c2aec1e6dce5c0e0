"""The edge of a mesh as any program calls it: JSON and Server-Sent Events over HTTP, and gRPC on the same port."""

import http.client
import json
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc

from meshwright.core.channel import dial, dial_edge
from meshwright.core.errors import SetupError

CALL_S = 30.0
"""How long a call, a stream, or waiting for one's turn may take."""

MOST_BYTES = 8 * 2**20
"""Of a body, or of a line of a stream."""


class RefusedError(Exception):
    """The edge did not answer, or not as it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, read to its end; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON.

        Raises:
            RefusedError: It is none.
        """
        return _parsed(self.body)

    @property
    def retry_after_s(self) -> float:
        """After how long to try again; 0: it does not say."""
        return float(self.headers.get("retry-after", 0))


class Edge:
    """A client of one mesh.

    Args:
        url: `http://HOST:PORT` or `https://HOST:PORT`.
        api_key: What it is shown with every call; empty: nothing.
        authority: File of the authorities that an https edge's certificate may be of; empty: the public ones.

    Raises:
        SetupError: The URL is none, or the file cannot be read.
    """

    def __init__(self, url: str, api_key: str = "", authority: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SetupError(f"{url!r} is no URL of an edge: write http://HOST:PORT or https://HOST:PORT")
        self.url = url
        self._host = parts.hostname
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._authority = authority
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.metadata = tuple(self._headers.items())
        """What gRPC calls send along."""
        try:
            self._tls = ssl.create_default_context(cafile=authority or None)
        except OSError as error:
            raise SetupError(f"the authorities in {authority} cannot be read: {error}") from None

    def channel(self) -> grpc.aio.Channel:
        """Opens a channel for gRPC."""
        target = f"{self._host}:{self._port}"
        return dial_edge(target, self._authority) if self._is_tls else dial(target)

    def once(self, method: str, path: str, body: Any = None) -> Answer:
        """Makes one call.

        Raises:
            RefusedError: There was no answer.
        """
        with self._response(method, path, body, {}) as response:
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read(MOST_BYTES))

    def patient(self, method: str, path: str, body: Any = None) -> Answer:
        """Makes one call, and makes it again when the edge says so, where it was too much."""
        ends = time.monotonic() + CALL_S
        while (answer := self.once(method, path, body)).status == http.HTTPStatus.TOO_MANY_REQUESTS:
            if time.monotonic() + answer.retry_after_s > ends:
                raise RefusedError(f"{method} {path}: still too much after {CALL_S:g} s")
            time.sleep(max(1.0, answer.retry_after_s))
        return answer

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Makes one call and returns the JSON of its answer.

        Raises:
            RefusedError: It is none of success.
        """
        answer = self.patient(method, path, body)
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RefusedError(f"{method} {path}: {answer.status} {_refusal(answer.body)}")
        return answer.json

    def lines(self, path: str) -> list[Any]:
        """Reads a stream of one JSON object a line to its end.

        Raises:
            RefusedError: It is none.
        """
        return [_parsed(line) for line in self.patient("GET", path).body.splitlines()]

    def events(self, method: str, path: str, body: Any = None, *, after: int = 0) -> Generator[Any, None, None]:
        """Yields the events of a stream of Server-Sent Events behind a sequence, until its end or the caller's.

        Raises:
            RefusedError: There is no such stream, or it brings nothing more in time.
        """
        ends = time.monotonic() + CALL_S
        sent = {"accept": "text/event-stream"} | ({"last-event-id": str(after)} if after else {})
        while True:
            with self._response(method, path, body, sent) as response:
                if response.status == http.HTTPStatus.OK:
                    yield from _events(response, ends)
                    return
                is_too_much = response.status == http.HTTPStatus.TOO_MANY_REQUESTS
                if not is_too_much or time.monotonic() > ends:
                    raise RefusedError(f"{method} {path}: {response.status} {_refusal(response.read(MOST_BYTES))}")
            time.sleep(1)

    @contextmanager
    def _response(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=CALL_S, context=self._tls)
            if self._is_tls
            else http.client.HTTPConnection(self._host, self._port, timeout=CALL_S)
        )
        sent = self._headers | {"content-type": "application/json"} | headers
        with closing(connection):
            try:
                connection.request(method, path, None if body is None else json.dumps(body), sent)
                yield connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise RefusedError(f"{method} {self.url}{path}: {error or type(error).__name__}") from None


def _events(response: http.client.HTTPResponse, ends: float) -> Iterator[Any]:
    for line in iter(lambda: response.readline(MOST_BYTES), b""):
        if line.startswith(b"data:"):
            yield _parsed(line[5:])
        if time.monotonic() > ends:
            raise RefusedError(f"the stream does not end within {CALL_S:g} s")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedError(f"this is no JSON: {_opening(text)}") from None


def _refusal(body: bytes) -> str:
    """Returns what an error says: message and reason, as every edge writes them; of another server how it begins."""
    try:
        error = json.loads(body)
        reasons = [detail["reason"] for detail in error["details"] if "reason" in detail]
        told = f"{', '.join(reasons)}: {error['message']}"
    except (ValueError, RecursionError, LookupError, TypeError):
        return _opening(body)
    return _opening(told.encode())


def _opening(body: bytes) -> str:
    """Returns the beginning of a body on one line, for people."""
    return " ".join(body[:300].decode(errors="replace").split())
