"""The orchestrator: the agent that unnamed calls reach."""

from meshwright.agents.agent import Agent
from meshwright.agents.library.orchestrator.policy import DELEGATES
from meshwright.agents.library.orchestrator.prompts import DESCRIPTION, INSTRUCTIONS

agent = Agent(
    name="orchestrator",
    instructions=INSTRUCTIONS,
    description=DESCRIPTION,
    skills=("delegate", "answer"),
    delegates=DELEGATES,
)
