"""The readiness list: what a mesh must show before strangers may reach it, each item probed from outside."""
