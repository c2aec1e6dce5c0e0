"""Agents that name a tool by its major version; the first one also waits for a person."""

from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool

MODEL = f"scripted:{Path(__file__).parent / 'buyers.yaml'}"


@tool(effect="pure", approval="always")
def confirm() -> str:
    """Has a person confirm."""
    return "confirmed"


careful = Agent("careful", "Buys, and asks before.", tools=["prices.of@^1", confirm], model=MODEL)
modern = Agent("modern", "Buys.", tools=["prices.of@^2"], model=MODEL)
