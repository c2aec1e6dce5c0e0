"""Evals: whether an agent still does what its author promises."""
