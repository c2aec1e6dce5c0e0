"""Bounds: what a call that is RESOURCE_EXHAUSTED ran into."""

from enum import StrEnum

LIMIT = "limit"
"""The fact of an error's details that names the bound."""


class Bound(StrEnum):
    """What is used up. A caller learns whose it is, and nothing of others."""

    ADDRESS = "address"
    """Calls a second of the caller's address."""
    PRINCIPAL = "principal"
    """Calls a second of the caller: of its key, or of whom its token names."""
    TENANT = "tenant"
    """What the caller's tenant may have: calls a second, or tasks that wait."""
    SHARED = "shared"
    """Calls a second, as all edges count them together."""
    ROUTE = "route"
    """Open calls of one edge to one agent, or to the registry."""
    EDGE = "edge"
    """Memory of one edge."""
    PROCESS = "process"
    """Calls, streams or threads of one process behind the edge."""
    AGENT = "agent"
    """Tasks of all callers that wait for the agent."""
