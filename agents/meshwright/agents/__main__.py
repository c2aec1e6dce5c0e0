"""`python -m meshwright.agents MODULE:AGENT`: one agent's process."""

import sys

from meshwright.agents.agent import load
from meshwright.agents.settings import AgentSettings
from meshwright.core import process
from meshwright.core.errors import SetupError
from meshwright.core.process import Process


async def main(running: Process) -> None:
    """Loads the agent that the command line names and serves it."""
    if len(sys.argv) != 2:  # noqa: PLR2004
        raise SetupError("usage: python -m meshwright.agents MODULE:AGENT")
    settings = AgentSettings.load()
    agent = load(sys.argv[1])
    from meshwright.agents.serving import serve  # the author's mistakes are told before anything slow is imported

    await serve(agent, settings, running)


if __name__ == "__main__":
    process.run(main)
