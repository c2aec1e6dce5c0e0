"""The reviewer: holds claims against sources and says which sentence decides."""

from meshwright.agents.agent import Agent
from meshwright.agents.library.reviewer.policy import APPROVALS, SEARCH
from meshwright.agents.library.reviewer.prompts import DESCRIPTION, INSTRUCTIONS
from meshwright.agents.library.reviewer.tools import compare

agent = Agent(
    name="reviewer",
    instructions=INSTRUCTIONS,
    description=DESCRIPTION,
    skills=("review", "verify", "fact-check"),
    tools=(compare, SEARCH),
    approvals=APPROVALS,
)
