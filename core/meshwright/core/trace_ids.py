"""Ids of the traces that begin in this process: those that the edge has named in its log, else random ones."""

import re
from contextvars import ContextVar

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

TRACE_KEY = "x-mesh-trace"
"""Metadata in which the edge names the trace of a call that comes from no other; its keeping it leaves open."""
NAME = re.compile(r"[0-9a-f]{32}")
_named: ContextVar[int] = ContextVar("named_trace", default=0)


class TraceIds(RandomIdGenerator):
    """Makes ids; the trace of a call that the edge has named begins under that name."""

    def generate_trace_id(self) -> int:
        """Returns the name that `name_trace` has heard last in this context, once; else a random id."""
        if not (named := _named.get()):
            return super().generate_trace_id()
        _named.set(0)
        return named


def name_trace(text: str) -> None:
    """Has the next trace that begins in this context bear a name; what is none is left alone.

    Args:
        text: 32 hexadecimal digits in small letters.
    """
    _named.set(int(text, 16) if NAME.fullmatch(text) else 0)
