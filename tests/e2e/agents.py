"""Agents that the end-to-end tests bring along: one that works slowly, so that there is something to interrupt."""

from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool

HERE = Path(__file__).parent


@tool(effect="pure")
def tick(number: int) -> int:
    """Counts one further."""
    return number + 1


@tool(effect="non_idempotent", name="mail.send", approval="always")
def send(to: str) -> str:
    """Sends a letter."""
    return f"sent to {to}"


asking = Agent("asking", "Sends letters.", tools=[send], model=f"scripted:{HERE / 'asking.yaml'}")
poster = Agent(
    "poster",
    "Sends letters that two have seen.",
    tools=[send],
    four_eyes=True,
    model=f"scripted:{HERE / 'posting.yaml'}",
)
slow = Agent("slow", "Counts, and takes its time.", tools=[tick], model=f"scripted:{HERE / 'slow.yaml'}")
