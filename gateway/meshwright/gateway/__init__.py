"""Meshwright gateway."""
