"""Ports for a mesh's own processes: from below the range that the kernel hands out by itself."""

import random
import socket

from meshwright.core.errors import SetupError

FIRST, LAST = 20_000, 32_000
TRIES = 200


def is_free(host: str, port: int) -> bool:
    """Whether a port can be listened on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
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
    if FIRST <= wish <= LAST and wish not in taken and is_free(host, wish):
        taken.add(wish)
        return wish
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(host, port):
            taken.add(port)
            return port
    raise SetupError(f"no free port between {FIRST} and {LAST}")
