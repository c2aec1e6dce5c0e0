"""A TCP proxy that misbehaves on request: it stands for a network between two processes."""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Literal

Fault = Literal["", "delay", "blackhole", "reset", "half-close", "throttle"]
FAULTS: tuple[Fault, ...] = ("delay", "blackhole", "reset", "half-close", "throttle")
HOST = "127.0.0.1"
DELAY_S = 0.3
THROTTLED_BYTES_S = 1024
PIECE = 16 * 2**10
SLICE_S = 0.1
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Passes bytes between two places, as well as the fault of the moment allows.

    A connection meets the fault whichever came first. `delay` adds 0.3 s to every piece; `blackhole` holds back
    everything, as a network does whose packets are lost: they arrive once it is lifted; `reset` resets all connections,
    new ones too; `half-close` ends the direction towards the client and passes the other one on; `throttle` passes 1 KB
    a second in each direction.

    Args:
        target: Where the bytes go: a port on loopback, or the path of a socket; may be set later.
        port: Where to listen.
    """

    def __init__(self, target: int | str, port: int) -> None:
        self.target = target
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.fault: Fault = ""
        self.connections = 0

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def stop(self) -> None:
        """Stops to listen and ends every connection."""
        if self._server:
            self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def set(self, fault: Fault) -> None:
        """Lets a fault begin; empty: lifts it."""
        self.fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault == "reset":
            self.cut()

    def cut(self) -> None:
        """Resets every connection there is."""
        for writer in list(self._writers):
            reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self.connections += 1
        try:
            await self._pass((reader, writer))
        except (OSError, asyncio.CancelledError):  # a cancelled link has been stopped: nobody waits for it
            reset(writer)
        finally:
            self._links.discard(link)

    async def _pass(self, near: Pair) -> None:
        if self.fault == "reset":
            reset(near[1])
            return
        far = await self._dial()
        self._writers |= {near[1], far[1]}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(near[0], far[1], self._unfailing))
                group.create_task(self._copy(far[0], near[1], self._half_closed))
        except* OSError:
            pass
        finally:
            self._writers -= {near[1], far[1]}
            for _, writer in (near, far):
                writer.close()

    async def _dial(self) -> Pair:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(HOST, self.target)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: Callable[[], bool]) -> None:
        """Copies one direction until its end, or until the fault ends it."""
        while piece := await self._piece(reader, ends):
            await self._slowly(piece, writer)
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()

    async def _piece(self, reader: asyncio.StreamReader, ends: Callable[[], bool]) -> bytes:
        """Reads on; empty: the direction is at its end, also because the fault wants it."""
        reading = asyncio.ensure_future(reader.read(PIECE))
        try:
            while not ends():
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if reading.done():
                    return await reading
            return b""
        finally:
            reading.cancel()

    async def _slowly(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        while self.fault == "blackhole":
            await self._changed.wait()
        if self.fault == "delay":
            await asyncio.sleep(DELAY_S)
        while piece and self.fault == "throttle":
            size = int(THROTTLED_BYTES_S * SLICE_S)
            await self._write(piece[:size], writer)
            piece = piece[size:]
            await asyncio.sleep(SLICE_S)
        if piece:
            await self._write(piece, writer)

    @staticmethod
    async def _write(piece: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(piece)
        await writer.drain()

    def _half_closed(self) -> bool:
        return self.fault == "half-close"

    @staticmethod
    def _unfailing() -> bool:
        return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a reset in place of a farewell."""
    sock: socket | None = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):
        if sock is not None and sock.fileno() >= 0 and sock.family.name != "AF_UNIX":
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
