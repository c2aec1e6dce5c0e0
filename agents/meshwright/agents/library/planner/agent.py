"""The planner: breaks a goal into steps and says who does each; it hands out no work."""

from meshwright.agents.agent import Agent
from meshwright.agents.library.planner.policy import APPROVALS
from meshwright.agents.library.planner.prompts import DESCRIPTION, INSTRUCTIONS
from meshwright.agents.library.planner.tools import outline

agent = Agent(
    name="planner",
    instructions=INSTRUCTIONS,
    description=DESCRIPTION,
    skills=("plan", "steps"),
    tools=(outline,),
    approvals=APPROVALS,
)
