"""Agents: write one with `Agent`, run it with `python -m meshwright.agents FILE.py:NAME`."""

from meshwright.agents.agent import Agent
from meshwright.agents.escalation import Escalates

__all__ = ["Agent", "Escalates"]
