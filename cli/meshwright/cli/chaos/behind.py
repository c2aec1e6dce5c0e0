"""`python -m meshwright.cli.chaos.behind HOST:PORT MODULE ARGUMENT...`: a service that announces another address.

It listens where it would, and tells everybody else of the address in front of it, as behind a translating router.
"""

import runpy
import sys

from meshwright.core.server import Server


def pretend(announced: str) -> None:
    """Makes every server of this process name the given address as its own."""
    start = Server.start

    async def started(self: Server) -> str:
        await start(self)
        return announced

    setattr(Server, start.__name__, started)


if __name__ == "__main__":
    pretend(sys.argv[1])
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
