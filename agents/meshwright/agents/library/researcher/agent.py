"""The researcher: answers from the user's own files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from meshwright.agents.agent import Agent
from meshwright.agents.library.researcher.corpus import Corpus
from meshwright.agents.library.researcher.policy import APPROVALS
from meshwright.agents.library.researcher.prompts import DESCRIPTION, INSTRUCTIONS
from meshwright.agents.library.researcher.tools import prepare, read, search, tools_over
from meshwright.registry.tool import LocalTool


def over(folder: Path) -> Agent:
    """Returns a researcher of one folder, in place of the one that `MESHWRIGHT_DOCS` names.

    Raises:
        SetupError: There is no such folder, or it cannot be read.
    """
    corpus = Corpus.open(folder)
    return _made(tools_over(lambda: corpus))


def _made(tools: Sequence[LocalTool], prepare: Callable[[], None] | None = None) -> Agent:
    return Agent(
        name="researcher",
        instructions=INSTRUCTIONS,
        description=DESCRIPTION,
        skills=("research", "documents", "search"),
        tools=tools,
        approvals=APPROVALS,
        prepare=prepare,
    )


agent = _made((search, read), prepare)
