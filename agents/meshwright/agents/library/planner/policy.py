"""Whom the planner may name, and what it may do without asking: everything, since its tool only reads."""

from collections.abc import Mapping

from meshwright.agents.inputs import Approval
from meshwright.agents.outline import Helper

APPROVALS: Mapping[str, Approval] = {"plan.outline": "never"}
HELPERS = (
    Helper("researcher", "Searches the user's files, research"),
    Helper("summarizer", "Summarises and condenses material"),
    Helper("reviewer", "Reviews, checks and verifies claims"),
)
"""Agents that a plan names where the request lists no others: those that ship, what they are good at by its verbs."""
