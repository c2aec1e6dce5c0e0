"""Agents that hand work on: a boss to two foremen, each of those to twenty-five helpers at once."""

from meshwright.agents import Agent

boss = Agent("boss", "See that it is done.", delegates=["foreman"])
foreman = Agent("foreman", "Half of it.", delegates=["helper"], max_children=25, max_children_at_once=25)
helper = Agent("helper", "Help.")
