"""A receiver of webhooks that checks signatures as Standard Webhooks has them, and misbehaves as a test wants."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KEY = b"k" * 24
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NEXT_KEY = b"n" * 32
NEXT_SECRET = "whsec_" + base64.b64encode(NEXT_KEY).decode()

Behaviour = Callable[[int], int | None]


@dataclass
class Got:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def is_signed_by(self, *keys: bytes) -> bool:
        """Whether the header holds exactly one good signature for each key."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        good = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
        return self.headers["webhook-signature"].split(" ") == good


@dataclass
class Receiver:
    """An HTTP server on a free port; `behaviour(n)` makes the status of the n-th request, `None` hangs."""

    behaviour: Behaviour = lambda _: 204
    got: list[Got] = field(default_factory=list)
    headers: str = ""
    port: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.place}/hooks"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self.got.append(Got(headers, await reader.readexactly(int(headers["content-length"]))))
            self.arrived.set()
            status = self.behaviour(len(self.got))
            if status is None:
                await reader.read()  # until the other side gives up
            else:
                writer.write(f"HTTP/1.1 {status} X\r\n{self.headers}Content-Length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    async def receives(self, many: int, patience_s: float = 20) -> list[Got]:
        """Waits for so many requests."""
        async with asyncio.timeout(patience_s):
            while len(self.got) < many:
                self.arrived.clear()
                await self.arrived.wait()
        return self.got
