"""`python -m meshwright.registry.tool MODULE`: a tool host's process, for the tools that a module or file holds."""

import sys

from meshwright.core import process
from meshwright.core.errors import SetupError
from meshwright.core.process import Process
from meshwright.registry.module import members
from meshwright.registry.settings import HostSettings


async def main(running: Process) -> None:
    """Serves the tools of the module that the command line names."""
    if len(sys.argv) != 2:  # noqa: PLR2004
        raise SetupError("usage: python -m meshwright.registry.tool MODULE")
    settings = HostSettings.load()
    from meshwright.registry.tool import LocalTool

    tools = members(sys.argv[1], LocalTool)
    if not tools:
        raise SetupError(f"{sys.argv[1]} holds no tools: decorate functions with @tool")
    from meshwright.registry.tool_serving import serve

    await serve(list(tools.values()), settings, running)


if __name__ == "__main__":
    process.run(main)
