"""`python -m meshwright.agents MODULE:AGENT [--role all|server|worker]`: one agent's process."""

import argparse
import functools

from meshwright.agents.agent import load
from meshwright.agents.settings import AgentSettings
from meshwright.core import process
from meshwright.core.process import Process


def parsed() -> argparse.Namespace:
    """Reads the command line; everything else is set by environment variables, see `settings.py`."""
    parser = argparse.ArgumentParser(prog="python -m meshwright.agents", description="Runs one agent.")
    parser.add_argument("agent", metavar="MODULE:AGENT", help="module or FILE.py, and the agent's name in it")
    parser.add_argument("--role", choices=("all", "server", "worker"), help="serve calls, run tasks, or both (default)")
    return parser.parse_args()


async def main(options: argparse.Namespace, running: Process) -> None:
    """Loads the agent that the command line names and serves it."""
    settings = AgentSettings.load(role=options.role)
    agent = load(options.agent)
    from meshwright.agents.serving import serve  # the author's mistakes are told before anything slow is imported

    await serve(agent, settings, running)


if __name__ == "__main__":
    process.run(functools.partial(main, parsed()))
