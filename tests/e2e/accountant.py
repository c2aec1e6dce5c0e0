"""An agent that says nothing of models: which one answers is a setting of its process."""

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(name="tax.add", effect="pure")
def add_tax(net: float) -> float:
    """Adds tax to a net price."""
    return round(net * 1.19, 2)


agent = Agent("accountant", "Answer questions about prices.", tools=[add_tax])
