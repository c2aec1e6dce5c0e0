"""`python -m meshwright.registry.tool MODULE|FILE.py|FILE.yaml`: a tool host's process."""

import sys

from meshwright.core import process
from meshwright.core.errors import SetupError
from meshwright.core.process import Process
from meshwright.registry.module import tools
from meshwright.registry.settings import HostSettings


async def main(running: Process) -> None:
    """Serves the tools of the module or file that the command line names."""
    if len(sys.argv) != 2:  # noqa: PLR2004
        raise SetupError("usage: python -m meshwright.registry.tool MODULE|FILE.py|FILE.yaml")
    settings = HostSettings.load()
    hosted = tools(sys.argv[1])
    from meshwright.registry.tool_serving import serve  # the author's mistakes are told before

    await serve(hosted, settings, running)


if __name__ == "__main__":
    process.run(main)
