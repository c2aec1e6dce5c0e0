"""An agent with nothing but the guardrails that every agent has: it reads a document, and could switch a lamp."""

from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="non_idempotent", name="lamp.switch", approval="never")
def switch(*, lit: bool) -> str:
    """Switches the lamp."""
    return "switched on" if lit else "switched off"


reader = Agent(
    "reader",
    "Reads documents, and answers from them.",
    tools=["docs.read@^1", switch],
    model=f"scripted:{Path(__file__).parent / 'reader.yaml'}",
)
