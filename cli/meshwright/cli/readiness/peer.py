"""An HTTP server that is not trusted: every request on a connection of its own, bounded in time and size."""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import h11
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from meshwright.cli.place import Place
from meshwright.cli.readiness.outcome import plain
from meshwright.cli.readiness.pace import Pace
from meshwright.core.errors import (
    MeshError,
    OverloadedError,
    RateLimitedError,
    SetupError,
    TlsRefusedError,
    UnavailableError,
)
from meshwright.core.facts import Facts

M = TypeVar("M", bound=Message)
REQUEST_S = 5.0
"""Bounds one request, from the connection to the last byte."""
MOST_BYTES = 8 * 2**20
MOST_HEADER_BYTES = 64 * 2**10
CHUNK = 64 * 2**10
OK, TOO_MANY, EXHAUSTED = 200, 429, "8"
"""Of HTTP, but for the last, by which gRPC says what 429 says."""
PASSING = ("", OverloadedError.reason, RateLimitedError.reason)
"""Reasons of that which pass; the others are verdicts. The first is that of a server that gives none."""
DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
"""Messages that an error's details are made of: whoever reads one from JSON has to know them."""

AWAY = (502, 503)
"""Of HTTP: what was asked for cannot be served at the moment."""
AWAY_FIRST = "a part of the mesh is away: see contract: mesh, and look again"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end.

    Attributes:
        status: Of HTTP.
        headers: By their names in lower case.
        body: What came.
        took_s: From the connection to the last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    def read(self, message: M) -> M:
        """Reads a message of the contract into an empty one.

        Raises:
            MeshError: The answer is an error, or none of the contract.
        """
        if self.status not in (OK, 202):
            raise self.error
        try:
            return json_format.Parse(self.body, message, ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, RecursionError):
            raise UnavailableError(f"answers {self.status} with what is no {message.DESCRIPTOR.name}") from None

    @property
    def error(self) -> MeshError:
        """The error that an answer says; one of our own where it says none."""
        found = self._told()
        if found is None or not found.message:
            return UnavailableError(f"answers {self.status} without saying why")
        error = MeshError.from_status(found)
        error.message = plain(error.message)
        return error

    @property
    def shown(self) -> str:
        """Status and stable reason, in a few words."""
        return f"{self.status} {plain(self._reason)}".strip()

    def advice(self, otherwise: str) -> str:
        """Says what to do about an answer that was not hoped for; one of a part that is away tells nothing else."""
        return AWAY_FIRST if self.status in AWAY else otherwise

    @property
    def is_too_many(self) -> bool:
        """Whether it says nothing of the request, but that it came too soon."""
        if self.status == TOO_MANY:
            return self._reason in PASSING
        return self.status == OK and self.headers.get("grpc-status") == EXHAUSTED

    @property
    def _reason(self) -> str:
        found = self._told()
        return Facts.from_status(found).reason if found else ""

    def _told(self) -> status_pb2.Status | None:
        """Returns what an error says of itself; None: nothing that can be read."""
        try:
            return json_format.Parse(self.body, status_pb2.Status(), ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, RecursionError, DecodeError):
            return None


class Peer:
    """A client of one server.

    No redirect is followed, and the key goes to this server alone, by TLS whose certificate was found good.

    Args:
        place: Where it is; by plain text no key is sent.
        key: An API key or a token; empty: none.
        context: How its certificate is checked.

    Raises:
        SetupError: The key cannot be one.
    """

    def __init__(self, place: Place, key: str, context: ssl.SSLContext) -> None:
        if not (key.isascii() and key.isprintable()):
            raise SetupError("the key holds what no header may: set MESHWRIGHT_API_KEY to an API key, or to a token")
        self.place = place
        self.has_key = bool(key) and self.place.is_tls
        self._key = key
        self._context = context
        self.pace = Pace()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        is_keyed: bool = True,
    ) -> Answer:
        """Makes a request; one that was too many is made again, once the server takes more.

        Args:
            method: Of HTTP.
            path: With its query.
            body: JSON, unless the headers say otherwise.
            headers: Beside those that every request has.
            is_keyed: Whether it says who is calling.

        Raises:
            MeshError: The server is not there, is not trusted, is too slow, or speaks no HTTP.
            RateLimitedError: It takes no more for too long.
        """
        sent = {"host": self.place.authority, "user-agent": "meshwright-doctor", "connection": "close"}
        if is_keyed and self.has_key:
            sent["authorization"] = f"Bearer {self._key}"
        if method == "POST":
            sent |= {"content-type": "application/json", "content-length": str(len(body))}
        head = h11.Request(
            method=method, target=self.place.prefix + path, headers=list((sent | dict(headers or {})).items())
        )
        while True:
            async with self.pace.turn():
                answer = await exchanged(self.place, head, body, self._context if self.place.is_tls else None)
            if not answer.is_too_many:
                return answer
            self.pace.slow(answer.headers.get("retry-after", ""), f"it answers {answer.shown}: too many requests")

    async def reach(self) -> None:
        """Opens a connection and closes it.

        Raises:
            UnavailableError: Nobody is there.
        """
        try:
            async with asyncio.timeout(REQUEST_S):
                _, writer = await connected(self.place, None)
        except TimeoutError:
            raise UnavailableError(f"no connection within {REQUEST_S:g} s") from None
        writer.transport.abort()

    async def read(self, path: str, message: M) -> M:
        """Reads a message of the contract.

        Raises:
            MeshError: As `ask`, or what the mesh answers.
        """
        return (await self.ask("GET", path)).read(message)


async def exchanged(place: Place, head: h11.Request, body: bytes, context: ssl.SSLContext | None) -> Answer:
    """Sends a request and reads its answer, on a connection of its own.

    Args:
        place: Where to.
        head: The request.
        body: What follows it.
        context: Of TLS; None: plain text.

    Raises:
        MeshError: As `Peer.ask`.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(REQUEST_S):
            reader, writer = await connected(place, context)
            try:
                return await told(reader, writer, head, body, began)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise UnavailableError(f"does not answer within {REQUEST_S:g} s") from None
    except (h11.ProtocolError, UnicodeError):
        raise UnavailableError("answers what is no HTTP") from None
    except OSError as error:
        raise UnavailableError(f"breaks off: {words_of(error)}") from None


async def connected(place: Place, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a connection.

    Raises:
        TlsRefusedError: Its certificate is not trusted, or no kind of TLS is spoken on both sides.
        UnavailableError: Nobody is there.
    """
    name = place.host if context else None
    try:
        return await asyncio.open_connection(place.host, place.port, ssl=context, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise TlsRefusedError(f"its certificate is not trusted: {plain(error.verify_message)}") from None
    except ssl.SSLError as error:
        raise TlsRefusedError(f"no TLS with it: {plain(error.reason or 'it breaks off')}") from None
    except UnicodeError:
        raise UnavailableError("nobody answers there: it is no name of a host") from None
    except OSError as error:
        raise UnavailableError(f"nobody answers there: {words_of(error)}") from None


def words_of(error: OSError) -> str:
    """Says in the system's words why a connection failed."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return plain(error.strerror or "no address of it can be reached")


async def told(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: h11.Request, body: bytes, began: float
) -> Answer:
    """Sends a request, and reads while it is being sent: an answer may come before all has arrived."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEADER_BYTES)
    for event in (head, *([h11.Data(data=body)] if body else ()), h11.EndOfMessage()):
        writer.write(http.send(event) or b"")
    found: h11.Response | None = None
    parts, size = list[bytes](), 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK)
            if not data and found is None:
                raise UnavailableError("closes connections without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            found = event
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > MOST_BYTES:
                raise UnavailableError(f"answers more than {MOST_BYTES >> 20} MiB")
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
    assert found  # nothing else may end before there is a head
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in found.headers}
    return Answer(found.status_code, headers, b"".join(parts), time.monotonic() - began)
