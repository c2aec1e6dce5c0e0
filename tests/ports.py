"""Ports for what tests start: below those that the kernel hands out, so that nobody else is given one meanwhile."""

from meshwright.cli import ports

TAKEN: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Picks ports that nobody uses; none of them twice in this process."""
    return [ports.reserve("127.0.0.1", TAKEN) for _ in range(count)]
