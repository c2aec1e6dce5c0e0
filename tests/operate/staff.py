"""Agents that between them do all that metrics tell of."""

from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool

HERE = Path(__file__).parent


@tool(effect="pure", name="tax.add")
def add(net: int) -> float:
    """Adds tax."""
    return net * 1.19


@tool(effect="pure", name="rates.today")
def rates() -> float:
    """Fails."""
    raise RuntimeError("the bank is closed")


@tool(effect="non_idempotent", name="letters.send", approval="always")
def send(to: str) -> str:
    """Sends a letter."""
    return f"sent to {to}"


MODEL = f"scripted:{HERE / 'staff.yaml'}"
clerk = Agent(
    "clerk",
    "Adds up.",
    tools=[add, rates],
    on_outage="degrade",
    model=f"scripted:{HERE / 'away.yaml'}, {MODEL}",
)
teller = Agent("teller", "Tells opening hours.", cache="exact", model=MODEL)
careful = Agent("careful", "Sends letters.", tools=[send], model=MODEL)
slow = Agent("slow", "Takes its time.", tools=[add], model=MODEL)
