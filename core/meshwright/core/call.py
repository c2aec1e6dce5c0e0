"""A call: what goes along with it, for those who serve it and for those who make further ones."""

from contextvars import ContextVar

METADATA_KEY = "x-mesh-grant-bin"
"""Carries the grant."""
DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)
"""When the current call has to be answered, on the monotonic clock; None: it has all the time."""
