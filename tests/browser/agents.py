"""Agents for the page to show: some ask people, one takes its time."""

import os
import signal
from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool

SCRIPT = f"scripted:{Path(__file__).parent / 'agents.yaml'}"


@tool(effect="non_idempotent", name="mail.send", approval="always")
def send(to: str, subject: str = "", count: int = 1) -> str:
    """Sends a letter."""
    return f"sent {count} to {to}: {subject}"


@tool(effect="non_idempotent", name="lamp.switch", timeout_s=1)
def switch() -> str:
    """Takes its process down before anybody knows what came of it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


asking = Agent("asking", "Sends letters.", tools=[send], model=SCRIPT)
boss = Agent("boss", "Has letters sent.", delegates=["asking"], model=SCRIPT)
curious = Agent("curious", "Asks.", asks_people=True, model=SCRIPT)
fragile = Agent("fragile", "Switches lamps.", tools=[switch], model=SCRIPT)


@tool(effect="pure")
def tick(number: int) -> int:
    """Counts one further."""
    return number + 1


counting = Agent("counting", "Counts, and takes its time.", tools=[tick], model=SCRIPT)
