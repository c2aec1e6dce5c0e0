"""The summarizer: an extractive summary in which every sentence has its source."""

from meshwright.agents.agent import Agent
from meshwright.agents.library.summarizer.policy import APPROVALS
from meshwright.agents.library.summarizer.prompts import DESCRIPTION, INSTRUCTIONS
from meshwright.agents.library.summarizer.tools import summarize

agent = Agent(
    name="summarizer",
    instructions=INSTRUCTIONS,
    description=DESCRIPTION,
    skills=("summarise", "extract"),
    tools=(summarize,),
    approvals=APPROVALS,
)
