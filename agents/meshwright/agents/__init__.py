"""Agents: write one with `Agent`, run it with `python -m meshwright.agents FILE.py:NAME`."""

from meshwright.agents.agent import Agent

__all__ = ["Agent"]
