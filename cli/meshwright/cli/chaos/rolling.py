"""Rolling: the processes of an agent and the services told to stop, one after the other, while tasks run."""

import asyncio
from collections.abc import Callable, Sequence

from meshwright.cli.chaos.rig import PATIENCE_S, Rig, until
from meshwright.cli.child import Child

WORKER = "-worker-"
DRAIN_S = "0.5"
"""Short: what a process does not finish in time is handed back, and that is to be seen."""
SETTLED_S = 1.5
"""How long a process is left alone once it is back, as a roll-out does, until the edge has found it healthy."""


def serves(child: Child) -> None:
    """Lets every process of an agent serve calls: a single one that restarts could not be rolled."""
    child.environment["MESHWRIGHT_DRAIN_S"] = DRAIN_S
    if WORKER in child.name:
        child.environment["MESHWRIGHT_ROLE"] = "all"


async def rolled(rig: Rig, children: Sequence[Child], before: Callable[[Child], None] | None = None) -> bool:
    """Restarts processes one by one, each only when the one before is back.

    Args:
        rig: Theirs.
        children: Processes.
        before: Called with each of them just before it is told to stop.

    Returns:
        Whether all of them came back.
    """
    for child in children:
        if before:
            before(child)
        rig.stop(child)
        if not await until(lambda child=child: rig.is_back(child), PATIENCE_S):  # type: ignore[misc]
            return False
        await asyncio.sleep(SETTLED_S)
    return True
