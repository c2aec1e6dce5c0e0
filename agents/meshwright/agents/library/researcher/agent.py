"""The researcher: answers from the user's own files."""

from meshwright.agents.agent import Agent
from meshwright.agents.library.researcher.prompts import DESCRIPTION, INSTRUCTIONS
from meshwright.agents.library.researcher.tools import prepare, read, search

agent = Agent(
    name="researcher",
    instructions=INSTRUCTIONS,
    description=DESCRIPTION,
    skills=("research", "documents", "search"),
    tools=(search, read),
    prepare=prepare,
)
