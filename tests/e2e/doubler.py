"""An agent with a tool of its own, whose answers cost something."""

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(version="1.0.0")
def double(number: int) -> int:
    """Doubles a number."""
    return 2 * number


clerk = Agent("clerk", "You answer.", tools=[double])
