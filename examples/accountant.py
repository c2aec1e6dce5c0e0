"""An agent with one tool."""

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="pure")
def add_vat(net: float, rate: float = 0.19) -> float:
    """Adds value added tax to a net price."""
    return round(net * (1 + rate), 2)


agent = Agent("accountant", "Answer questions about prices. Calculate with add_vat.", tools=[add_vat])
