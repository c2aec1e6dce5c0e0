"""The agents that ship, by name."""

from pathlib import Path

from meshwright.agents.agent import Agent, load

BUNDLED = ("orchestrator", "researcher", "summarizer", "planner", "reviewer")


def spec_of(name: str) -> str:
    """Spells a bundled agent as `python -m meshwright.agents` takes it."""
    return f"meshwright.agents.library.{name}.agent:agent"


def bundled(name: str, docs: Path | None = None) -> Agent:
    """Returns a bundled agent.

    Args:
        name: One of `BUNDLED`.
        docs: Folder of the researcher, in place of the one that the environment names.

    Raises:
        SetupError: The folder cannot be read.
    """
    if name == "researcher" and docs is not None:
        from meshwright.agents.library.researcher.agent import over

        return over(docs)
    return load(spec_of(name))
