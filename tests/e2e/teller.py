"""An agent with one effect, lines in a file, that gives less where it cannot answer."""

import os
from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="non_idempotent")
async def book(amount: int) -> str:
    """Books an amount."""
    with Path(os.environ["BOOK"]).open("a") as file:
        file.write(f"{amount}\n")
    return f"booked {amount}"


agent = Agent("teller", "Book.", tools=[book], on_outage="degrade", outage_text="Our lines are down.")
