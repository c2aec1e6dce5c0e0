"""Whom the orchestrator may hand work to."""

DELEGATES = ("researcher", "summarizer", "planner", "reviewer")
