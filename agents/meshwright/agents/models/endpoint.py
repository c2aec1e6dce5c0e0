"""A provider's server: where it is, and how it is asked and read within bounds."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from meshwright.agents.models.failure import FAILURES, LATER, Origin, failure_of
from meshwright.agents.models.model import OnText
from meshwright.core.errors import ModelUnavailableError, ResultTooLargeError, SetupError
from meshwright.core.limit import Limit
from meshwright.core.server import is_loopback
from meshwright.registry.backends.secret import MOST_CHARS

MOST_BYTES = 16 * 2**20
"""Bytes of one response, whatever surrounds the answer in it."""
CONNECT_S = 10.0
LONGEST_SILENCE_S = 120.0
NO_KEY = "none"
"""Stands in for a key, which the SDKs insist on, at servers that need none."""

_KEY = re.compile(rf"[!-~]{{0,{MOST_CHARS}}}")
_Read = TypeVar("_Read")


class Endpoint:
    """One model at one server.

    Args:
        sdk: The SDK's module.
        model: The model's name at the provider.
        base_url: Where it is served. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.
        timeout_s: Most seconds of one call; a silence of `LONGEST_SILENCE_S` ends it sooner.
        variable: The environment variable of the key, for the log.
        url_hint: What a base URL looks like, for the log.

    Attributes:
        host: The server's host.
        origin: Says what failed.

    Raises:
        SetupError: The base URL is none, or the key holds what no header can.
    """

    def __init__(
        self,
        sdk: ModuleType,
        model: str,
        base_url: str,
        api_key: str,
        timeout_s: float,
        *,
        variable: str,
        url_hint: str,
    ) -> None:
        if not _KEY.fullmatch(api_key):
            raise SetupError(f"{variable} is no key: it must be one word of visible ASCII characters")
        self.host, place = host_and_place(base_url)
        self._base_url = base_url
        self._key = api_key or NO_KEY
        silence_s = min(timeout_s, LONGEST_SILENCE_S)
        self._timeout = httpx2.Timeout(silence_s, connect=min(CONNECT_S, timeout_s))
        self._sdk = sdk
        self._timeout_s = timeout_s
        self.origin = Origin(place, model, variable, url_hint)

    def client_options(self) -> dict[str, Any]:
        """Returns what a client of the SDK is made with; repeats are the caller's business, who counts them."""
        return {
            "api_key": self._key,
            "base_url": self._base_url,
            "timeout": self._timeout,
            "max_retries": 0,
            "http_client": self._http_client(),
        }

    def _http_client(self) -> httpx2.AsyncClient:
        """Makes a client that reads no more than `MOST_BYTES` of a response and follows nobody elsewhere."""

        async def bound(response: httpx2.Response) -> None:
            is_plain = response.headers.get("content-encoding", "identity").lower() == "identity"
            response.stream = _BoundedStream(response.stream, self.origin, is_plain=is_plain)

        pattern = f"all://[{self.host}]" if ":" in self.host else f"all://{self.host}"
        client: httpx2.AsyncClient = self._sdk.DefaultAsyncHttpxClient(
            mounts={pattern: None} if is_loopback(self.host) else {},  # past a proxy
            timeout=self._timeout,
            follow_redirects=False,  # a key would go along
            headers={"accept-encoding": "identity"},  # a compressed answer has no bound
            event_hooks={"response": [bound]},
        )
        return client

    async def read(self, stream: Awaitable[Any], add: Callable[[Any], str], on_text: OnText) -> None:
        """Reads a streamed answer to its end.

        Args:
            stream: The SDK's call.
            add: Takes each chunk and returns the text in it.
            on_text: Gets each text that is not empty.

        Raises:
            MeshError: The provider failed; see `Model.answer`.
        """
        with self._in_time():
            async with aclosing(self._texts(stream, add)) as texts:
                async for text in texts:
                    on_text(text)

    async def ask(self, reply: Awaitable[Any], read: Callable[[Any], _Read]) -> _Read:
        """Reads an answer that comes in one piece.

        Args:
            reply: The SDK's call.
            read: Takes what was sent and returns what is wanted of it; what it stumbles over is no answer.

        Raises:
            MeshError: The provider failed; see `Model.answer`.
        """
        with self._in_time():
            try:
                return read(await reply)
            except (self._sdk.APIError, *FAILURES) as error:
                raise failure_of(error, self._sdk, self.origin) from None

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Bounds one call, whatever the provider sends meanwhile."""
        limit = Limit(self._timeout_s)
        try:
            with limit:
                yield
        except TimeoutError:
            if not limit.is_over:
                raise
            why = f"it does not answer in time: {self._timeout_s:g} s are over"
            told = f"does not answer in time: {LATER}"
            raise self.origin.failed(ModelUnavailableError, told, why) from None

    async def _texts(self, stream: Awaitable[Any], add: Callable[[Any], str]) -> AsyncGenerator[str, None]:
        try:
            async with await stream as chunks:
                async for chunk in chunks:
                    if text := add(chunk):
                        yield text
        except (self._sdk.APIError, *FAILURES) as error:
            raise failure_of(error, self._sdk, self.origin) from None


class _BoundedStream(httpx2.AsyncByteStream):
    """The bytes of a response, up to the bound."""

    def __init__(self, stream: Any, origin: Origin, *, is_plain: bool) -> None:
        self._stream = stream
        self._origin = origin
        self._is_plain = is_plain

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Passes the bytes on.

        Raises:
            ResultTooLargeError: There are more than `MOST_BYTES`.
            ModelUnavailableError: They are compressed, which was not asked for.
        """
        if not self._is_plain:
            what = "sent a compressed answer, which it was asked not to"
            raise self._origin.failed(ModelUnavailableError, f"{what}: {LATER}", f"it {what}")
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > MOST_BYTES:
                raise ResultTooLargeError(
                    f"{self._origin.name} sent more than {MOST_BYTES // 2**20} MiB for one answer"
                )
            yield part

    async def aclose(self) -> None:
        """Releases the connection."""
        await self._stream.aclose()


def host_and_place(base_url: str) -> tuple[str, str]:
    """Returns the host, and the URL as it may be shown: without credentials.

    Raises:
        SetupError: It is no URL of HTTP.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.scheme in {"http", "https"} and parts.port != 0 else None
        httpx2.URL(base_url)
    except (ValueError, httpx2.InvalidURL):
        parts, host = urlsplit(""), None
    if not host:
        raise SetupError("the base URL of the model is none: write http://HOST:PORT/v1")
    return host, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
