"""The agents that ship with Meshwright."""
