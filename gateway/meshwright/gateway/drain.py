"""Draining: an edge that is to stop takes nothing new, and lets what is open end.

`python -m meshwright.gateway.drain` does that to the Envoy beside the gateway's process, before either is told to stop.
"""

import asyncio
import json
import sys
from pathlib import Path

from meshwright.core.errors import SetupError, UnavailableError
from meshwright.gateway.config import ADMIN
from meshwright.gateway.settings import GatewaySettings

ADMIN_S = 2.0
"""How long one question to Envoy may take."""
NOTICE_S = 10.0
"""So long after its farewell a pod may still get new connections: not all of a cluster have heard of it at once."""
LOOK_S = 0.1
OPEN_CALLS = "http.edge.downstream_rq_active"
MOST_BYTES = 65_536


async def drain(folder: Path, wait_s: float, notice_s: float = 0.0) -> int:
    """Has balancers send nothing new, closes the listeners, and waits for the calls that are open.

    Args:
        folder: Where Envoy runs.
        wait_s: Seconds that open calls get.
        notice_s: Seconds, of these, in which new calls may still come: they are waited for where none is open, too.

    Returns:
        How many calls were still open when the time was over.

    Raises:
        UnavailableError: No Envoy answers there.
    """
    admin = folder / ADMIN
    await ask(admin, "POST", "/healthcheck/fail")
    await ask(admin, "POST", "/drain_listeners?graceful")
    clock = asyncio.get_running_loop().time
    ends, heard = clock() + wait_s, clock() + notice_s
    while True:
        stats = json.loads(await ask(admin, "GET", f"/stats?format=json&filter=^{OPEN_CALLS}$"))
        is_open = sum(int(one.get("value", 0)) for one in stats["stats"])
        now = clock()
        if now >= ends or (not is_open and now >= heard):
            return is_open
        await asyncio.sleep(LOOK_S)


async def ask(admin: Path, method: str, path: str) -> bytes:
    """Asks Envoy's admin interface; returns the body of the answer.

    Raises:
        UnavailableError: It does not answer, or not with 200.
    """
    try:
        async with asyncio.timeout(ADMIN_S):
            reader, writer = await asyncio.open_unix_connection(str(admin), limit=MOST_BYTES)
            try:
                writer.write(f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
                status = await reader.readline()
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise UnavailableError(f"no Envoy answers at {admin}: {error or 'it took too long'}") from None
    if b" 200 " not in status:
        raise UnavailableError(f"Envoy refuses {path}: {status.decode(errors='replace').strip()}")
    return unchunked(body) if b"transfer-encoding: chunked" in head.lower() else body


def unchunked(body: bytes) -> bytes:
    """Puts the chunks of a body together."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + rest[:length], rest[length + 2 :] if length else b""
    return whole


async def main() -> int:
    """Drains as the environment says: `MESHWRIGHT_FOLDER`, and `MESHWRIGHT_DRAIN_S` for open calls."""
    settings = GatewaySettings.load()
    left = await drain(settings.home, settings.drain_s, NOTICE_S)
    sys.stdout.write(f"drained: {left} calls are still open\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (SetupError, UnavailableError) as failed:
        sys.exit(f"error: {failed.message}")
