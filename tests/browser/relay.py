"""A line between browser and edge that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 65536


class Relay:
    """Passes bytes on between those who connect here and the edge, until it is cut; use it as a context.

    Args:
        port: Of the edge, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._mute: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where browsers find the edge."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> int:
        """Cuts all lines at once, without a word; returns how many ends there were."""
        cut = len(self._open)
        for writer in self._open:
            writer.transport.abort()
        return cut

    def mute_streams(self) -> None:
        """Swallows from now on what would pass on the lines of streams; others, and new ones, are as ever."""
        self._mute |= self._streams

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as ends:
            ends.enter_context(self._opened(writer))
            try:
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
            except OSError:
                return
            ends.enter_context(self._opened(back))
            ways = ((reader, back, writer), (there, writer, writer))
            both = [asyncio.create_task(self._pump(*way)) for way in ways]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    @contextlib.contextmanager
    def _opened(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            self._streams.discard(writer)
            self._mute.discard(writer)
            writer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, browser: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if b"/events?" in data and sink is not browser:
                    self._streams.add(browser)
                if sink not in self._mute:
                    sink.write(data)
                    await sink.drain()
