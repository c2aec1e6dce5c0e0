"""Tools and agents: contracts, who serves them, who is here; and `@tool` for those who write one."""

from meshwright.registry.invocation import Invocation, current_invocation
from meshwright.registry.retryable import Retryable
from meshwright.registry.tool import LocalTool, tool

__all__ = ["Invocation", "LocalTool", "Retryable", "current_invocation", "tool"]
