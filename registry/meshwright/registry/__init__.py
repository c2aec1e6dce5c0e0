"""Tools and agents: contracts, who serves them, who is here; and `@tool` for those who write one."""

from meshwright.registry.tool import Invocation, LocalTool, current_invocation, tool

__all__ = ["Invocation", "LocalTool", "current_invocation", "tool"]
