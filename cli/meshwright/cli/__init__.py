"""Meshwright cli."""
