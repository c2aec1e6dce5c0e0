"""One connection to the store that all callers of a process share.

A pool lends a connection to each caller, which costs several times what a function's call itself does. Here commands
that are asked in one turn of the loop go out as one write, and replies come back in the same order.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as StoreTimeoutError

LOOKS = 4
"""How often within its time limit the oldest question is looked after."""
PORT = 6379


class Wire(asyncio.Protocol):
    """Commands out, replies back.

    Args:
        timeout_s: A reply that takes longer ends the connection: nothing behind it can be told apart any more.
    """

    def __init__(self, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=Ellipsis)
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._unsent: list[bytes] = []
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether commands can be asked."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes up a connection."""
        self._transport = transport
        self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails every question that waits for a reply."""
        self._end(StoreConnectionError(f"connection lost: {exc or 'closed by the store'}"))

    def data_received(self, data: bytes) -> None:
        """Hands replies to those who wait for them, in the order of their questions."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not Ellipsis:
                _, future = self._waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self._end(StoreConnectionError(f"the store cannot be understood: {error!r}"))

    def ask(self, *command: str | int | bytes) -> asyncio.Future[Any]:
        """Sends a command with all others of this turn of the loop; the reply is the future's result."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(StoreConnectionError("connection lost"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub takes one word
        self._waiting.append((self._loop.time() + self._timeout_s, future))
        return future

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _look(self) -> None:
        if self._waiting and self._waiting[0][0] < self._loop.time():
            self._end(StoreTimeoutError("no reply in time"))
        else:
            self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look)

    def _end(self, error: Exception) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._timer:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)

    def close(self) -> None:
        """Ends the connection."""
        self._end(StoreConnectionError("connection closed"))


async def open_wire(url: str, timeout_s: float, label: str = "") -> Wire:
    """Connects to a store and makes itself known there.

    Args:
        url: `redis://`, `rediss://` or `unix://` address, with user and password where needed; for TLS also
            `?ssl_ca_certs=`, `&ssl_certfile=` and `&ssl_keyfile=`.
        timeout_s: For the connection, and for every reply.
        label: What the store lists the connection under, if it can; empty: nothing.

    Raises:
        redis.exceptions.RedisError: Nobody answers, or does not let us in.
    """
    place: dict[str, Any] = dict(parse_url(url))
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if "path" in place:
                _, wire = await loop.create_unix_connection(lambda: Wire(timeout_s), place["path"])
            else:
                tls = tls_context(place) if url.startswith("rediss:") else None
                host, port = place.get("host", "localhost"), place.get("port", PORT)
                _, wire = await loop.create_connection(lambda: Wire(timeout_s), host, port, ssl=tls)
    except (OSError, TimeoutError) as error:
        raise StoreConnectionError(f"cannot connect: {error or 'no answer in time'}") from None
    try:
        if place.get("password"):
            await wire.ask("AUTH", *([place["username"]] if place.get("username") else []), place["password"])
        if place.get("db"):
            await wire.ask("SELECT", place["db"])
        if label:
            with contextlib.suppress(ResponseError):  # a store before 7.2 does not know it
                await wire.ask("CLIENT", "SETINFO", "LIB-NAME", label)
    except BaseException:
        wire.close()
        raise
    return wire


def tls_context(place: dict[str, Any]) -> ssl.SSLContext:
    """Trusts the system's authorities, or the one that the address names."""
    context = ssl.create_default_context(cafile=place.get("ssl_ca_certs"))
    if place.get("ssl_certfile"):
        context.load_cert_chain(place["ssl_certfile"], place.get("ssl_keyfile"))
    return context
