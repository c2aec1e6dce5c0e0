"""The one way by which a tool host calls the outside: checked addresses, pinned; bounded in size and time.

Nothing is taken from the environment: no proxies, no cookies, no credentials. Each request has a connection of its own,
to an address that was checked in the same breath.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from socket import SOCK_STREAM, getaddrinfo
from typing import Any
from urllib.parse import urljoin

import h11

from meshwright.core.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    EgressRefusedError,
    ResultTooLargeError,
    SetupError,
    ToolFailedError,
)
from meshwright.registry.addresses import checked_host, checked_place, refusal
from meshwright.registry.decoding import Decoder
from meshwright.registry.threads import in_thread

URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[^\]/?]*\]|[^:/?\[\]@]+)(:(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[A-Za-z0-9._~:/@!$&'()*+,;=%\[\]-]*)?(?P<query>\?[A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]*)?"
)
PORTS = {"http": 80, "https": 443}
MAX_URL = 8_192
MAX_HEADERS = 100
MAX_INTERIM = 8
"""Answers of the 1xx kind before the real one."""
MAX_DIALLED = 4
"""Addresses of one name that are tried."""
CHUNK = 16 * 2**10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SEE_OTHER = 303
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts.

    Attributes:
        scheme: `http` or `https`.
        host: In its one spelling; IPv6 in brackets.
        port: Given, or the scheme's own.
        target: Path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def place(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return self.host if self.port == PORTS[self.scheme] else self.place

    def is_same_origin(self, other: "Url") -> bool:
        """Whether both lead to the same service."""
        return (self.scheme, self.place) == (other.scheme, other.place)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may take.

    Attributes:
        connect_s: Finding, connecting and the TLS handshake.
        header_bytes: Status line and headers.
        body_bytes: The body, decompressed.
        redirects: How many are followed, each checked like the first URL.
    """

    connect_s: float = 5.0
    header_bytes: int = 32 * 2**10
    body_bytes: int = 4 * 2**20
    redirects: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        method: In capitals.
        url: Absolute.
        headers: By name.
        secrets: Headers that go to the first origin only, whatever redirects say.
        body: Bytes; None: the method has none.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    Attributes:
        status: 200 to 599.
        headers: By name in small letters; of a repeated one the last counts.
        body: Decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


async def resolved(host: str, port: int) -> list[str]:
    """Asks the system's resolver for all addresses of a name."""
    found = await in_thread(lambda: getaddrinfo(host, port, type=SOCK_STREAM))
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@cache
def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Makes the TLS of a client, once: reading the system's authorities takes its time.

    Raises:
        SetupError: The file holds no authorities.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"ca_file: {ca_file} cannot be read: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class Egress:
    """Calls the outside on behalf of one tool.

    Args:
        allowed: `host:port` of services on a network next door that may be called.
        limits: What an answer may take.
        ca_file: PEM file of the authorities to trust in place of the system's.
        resolve: Finds a name's addresses.

    Raises:
        SetupError: An allowance is no `host:port`, or the authorities cannot be read.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        limits: Limits | None = None,
        ca_file: Path | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        try:
            self._allowed = {checked_place(place) for place in allowed}
        except EgressRefusedError as error:
            raise SetupError(f"allow: {error.message}") from None
        self._limits = limits or Limits()
        self._resolve = resolve
        self._tls = trusting(ca_file)

    def allows(self, host: str, port: int) -> bool:
        """Whether a service next door may be called."""
        return (host, port) in self._allowed

    async def addresses(self, host: str, port: int) -> list[str]:
        """Finds a host's addresses, once, and checks all of them.

        Args:
            host: In its one spelling; see `checked_host`.
            port: Counts for the allowance.

        Raises:
            EgressRefusedError: One of them is not called.
            BackendUnavailableError: There is none.
        """
        plain = host.strip("[]")
        is_address = host.startswith("[") or host.rpartition(".")[2].isdigit()
        try:
            found = [plain] if is_address else list(await self._resolve(plain, port))
        except (OSError, UnicodeError):
            raise BackendUnavailableError(f"{host} has no address at the moment: check the name") from None
        if not found:
            raise BackendUnavailableError(f"{host} has no address at the moment: check the name")
        for address in found:
            if why := refusal(address, is_allowed=self.allows(host, port)):
                told = (
                    f"{host}:{port} is not called: its address {why}; a service next door must be allowed by host:port"
                )
                raise EgressRefusedError(told, metadata={"host": host})
        return found

    async def fetch(self, request: Request, timeout_s: float) -> Response:
        """Sends a request and reads the whole answer.

        Args:
            request: What is sent.
            timeout_s: For everything, redirects included.

        Returns:
            The answer, whatever its status.

        Raises:
            EgressRefusedError: URL, address or redirect lead where nothing is called.
            BackendUnavailableError: Nobody answers, or the answer broke off.
            ToolFailedError: The answer is no HTTP.
            ResultTooLargeError: The body goes beyond the limit.
            DeadlineExceededError: The time is over.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._followed(request)
        except TimeoutError:
            raise DeadlineExceededError(f"{parsed(request.url).place} took longer than {timeout_s:g} s") from None

    async def _followed(self, request: Request) -> Response:
        followed = 0
        while True:
            url = parsed(request.url)
            response = await self._exchanged(url, request)
            is_elsewhere = response.status in REDIRECTS and "location" in response.headers
            if not (is_elsewhere and self._limits.redirects):
                return response
            if followed == self._limits.redirects:
                raise EgressRefusedError(f"{url.place} redirects more than {followed} times")
            request = redirected(request, url, response)
            followed += 1

    async def _exchanged(self, url: Url, request: Request) -> Response:
        reader, writer = await self._connected(url)
        try:
            return await Exchange(url, request, self._limits, reader, writer).response()
        finally:
            writer.transport.abort()

    async def _connected(self, url: Url) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to a checked address; certificate and Host header are those of the name all the same."""
        tls: dict[str, Any] = {}
        if url.scheme == "https":
            tls = {"ssl": self._tls, "server_hostname": url.host.strip("[]")}
        problem = "no answer"
        try:
            async with asyncio.timeout(self._limits.connect_s):
                for address in (await self.addresses(url.host, url.port))[:MAX_DIALLED]:
                    try:
                        return await asyncio.open_connection(address, url.port, **tls)
                    except OSError as error:
                        problem = explained(error)
        except TimeoutError:
            problem = f"no connection within {self._limits.connect_s:g} s"
        raise BackendUnavailableError(f"{url.place} cannot be reached: {problem}")


class Exchange:
    """One request and its answer on one connection.

    Args:
        url: Where the connection leads.
        request: What is sent.
        limits: What the answer may take.
        reader: Of the connection.
        writer: Of the connection.
    """

    def __init__(
        self,
        url: Url,
        request: Request,
        limits: Limits,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._url = url
        self._request = request
        self._limits = limits
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.header_bytes)
        self._is_cut = False

    async def response(self) -> Response:
        """Sends the request and reads the answer.

        Raises:
            MeshError: As `Egress.fetch`.
        """
        try:
            self._writer.write(self._written())
            with suppress(ConnectionError):  # it may have answered before it read everything
                await self._writer.drain()
            head = await self._head()
            return Response(head.status_code, self._headers(head), await self._body(head))
        except h11.RemoteProtocolError as error:
            if self._is_cut:
                raise self._broken() from None
            raise ToolFailedError(f"{self._url.place} answers no proper HTTP: {error}") from None
        except OSError:
            raise self._broken() from None

    def _broken(self) -> BackendUnavailableError:
        return BackendUnavailableError(f"{self._url.place} broke off before the end of its answer")

    def _written(self) -> bytes:
        body = self._request.body
        headers = {"host": self._url.authority, "connection": "close", "user-agent": "meshwright"}
        headers |= {"accept-encoding": "gzip, deflate", **self._request.headers, **self._request.secrets}
        if body is not None:
            headers["content-length"] = str(len(body))
        head = h11.Request(method=self._request.method, target=self._url.target, headers=list(headers.items()))
        events = (head, *([h11.Data(data=body)] if body else ()), h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            received = await self._reader.read(CHUNK)
            self._is_cut = not received
            self._http.receive_data(received)
        return event

    async def _head(self) -> h11.Response:
        for _ in range(MAX_INTERIM):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                break
        raise ToolFailedError(f"{self._url.place} answers no proper HTTP: no answer after interim ones")

    def _headers(self, head: h11.Response) -> dict[str, str]:
        size = sum(len(name) + len(value) for name, value in head.headers)
        if len(head.headers) > MAX_HEADERS or size > self._limits.header_bytes:
            most = f"{MAX_HEADERS} headers and {self._limits.header_bytes} bytes"
            raise ToolFailedError(f"{self._url.place} answers with more than {most} of headers")
        return {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}

    async def _body(self, head: h11.Response) -> bytes:
        encoding = b",".join(value for name, value in head.headers if name == b"content-encoding")
        decoder = Decoder(encoding.decode("latin-1"), self._limits.body_bytes)
        try:
            while isinstance(event := await self._event(), h11.Data):
                decoder.add(bytes(event.data))
            return decoder.whole()
        except OverflowError:
            told = f"{self._url.place} answers with more than {self._limits.body_bytes} bytes: ask for less"
            raise ResultTooLargeError(told) from None
        except ValueError as error:
            raise ToolFailedError(f"{self._url.place} answers with a broken body: {error}") from None


def parsed(url: str) -> Url:
    """Reads an absolute URL strictly.

    Raises:
        EgressRefusedError: It is none, or holds what no URL of a tool needs: user info, a fragment, an odd host.
    """
    match = URL.fullmatch(url) if len(url) <= MAX_URL else None
    port = int(match["port"] or PORTS[match["scheme"]]) if match else 0
    if not match or port > 65_535:  # noqa: PLR2004 - the last port
        raise EgressRefusedError("the URL is not called: only http(s)://host[:port]/path without user info is")
    target = (match["path"] or "/") + (match["query"] or "")
    return Url(match["scheme"], checked_host(match["host"]), port, target)


def redirected(request: Request, url: Url, response: Response) -> Request:
    """Returns the request that a redirect asks for; secrets do not follow it to another origin.

    Raises:
        EgressRefusedError: It leads out of TLS, or to what is no URL.
    """
    try:
        target = parsed(urljoin(str(url), response.headers["location"].partition("#")[0]))
    except ValueError:
        raise EgressRefusedError(f"{url.place} redirects to what is no URL") from None
    if url.scheme == "https" and target.scheme != "https":
        raise EgressRefusedError(f"{url.place} redirects out of TLS")
    secrets = request.secrets if target.is_same_origin(url) else {}
    is_post_moved = request.method == "POST" and response.status in (301, 302)
    if is_post_moved or (response.status == SEE_OTHER and request.method != "HEAD"):
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-type"}
        return Request("GET", str(target), headers, secrets)
    return replace(request, url=str(target), secrets=secrets)


def explained(error: OSError) -> str:
    """Tells why a connection failed, without what the other side may have put into it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    return "TLS failed" if isinstance(error, ssl.SSLError) else error.strerror or type(error).__name__
