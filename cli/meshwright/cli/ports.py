"""Ports for a mesh's own processes: from below the range that the kernel hands out by itself."""

import os
import random
import socket

from meshwright.core.errors import SetupError

FIRST, LAST = 20_000, 32_000
TRIES = 200
MOST_CLAIMS = 256
CLAIMS: dict[int, int] = {}
"""The newest claims, descriptors by ports; what a port was picked for has long begun to listen when it is given up."""


def family_of(host: str) -> socket.AddressFamily:
    """Of an address: with colons it is one of IPv6."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_free(host: str, port: int) -> bool:
    """Whether a port can be listened on now."""
    with socket.socket(family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def claim(host: str, port: int) -> bool:
    """Keeps a port from other meshes that start now, until its own process listens; False: one of them was first.

    The claim is the UDP port of the same number, which nobody here listens on; it ends with this process.
    """
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as claimed:
        try:
            claimed.bind((host, port))
        except OSError:
            return False
        CLAIMS[port] = claimed.detach()
    if len(CLAIMS) > MOST_CLAIMS:
        os.close(CLAIMS.pop(next(iter(CLAIMS))))
    return True


def reserve(host: str, taken: set[int], wish: int = 0) -> int:
    """Picks a free port and remembers it.

    Args:
        host: Where it is listened on.
        taken: Those that were picked before.
        wish: The port to pick where it is free, if it is in the range.

    Raises:
        SetupError: None was found.
    """
    if FIRST <= wish <= LAST and wish not in taken and is_free(host, wish) and (wish in CLAIMS or claim(host, wish)):
        taken.add(wish)
        return wish
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(host, port) and claim(host, port):
            taken.add(port)
            return port
    raise SetupError(f"no free port between {FIRST} and {LAST}")
