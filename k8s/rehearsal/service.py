"""A service: an address before pods, as kube-proxy makes it for every connection."""

import asyncio
import random
from collections.abc import Callable, Sequence

from k8s.rehearsal.pod import Pod

PIECE = 64 * 2**10
CONNECT_S = 2.0


class Service:
    """Passes each connection on to one of the pods behind it; one that is open stays where it is.

    Args:
        address: Its own.
        port: Name of the pods' port; it listens at that number.
        pods: Returns those behind it.
    """

    def __init__(self, address: str, port: str, pods: Callable[[], Sequence[Pod]]) -> None:
        self._address, self._port, self._pods = address, port, pods
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def start(self, number: int) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._accept, self._address, number, limit=PIECE)

    async def stop(self) -> None:
        """Ends every connection."""
        if self._server:
            self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._links.add(this)
        try:
            await self._link(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            self._links.discard(this)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = self._pods()
        if not behind:
            return  # the connection is refused
        pod = random.choice(behind)
        async with asyncio.timeout(CONNECT_S):
            inner, outer = await asyncio.open_connection(pod.address, pod.port(self._port), limit=PIECE)
        try:
            ways = [asyncio.create_task(_pass(reader, outer)), asyncio.create_task(_pass(inner, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            outer.close()  # what it was still to be told is sent


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
