"""Tools of the rehearsal's tool host: `post`, which agents call, and `book`, which callers at the edge call."""

from meshwright.cli.chaos.agents import TIMEOUT_S, act, post
from meshwright.registry import tool

__all__ = ["book", "post"]


@tool(effect="idempotent", timeout_s=TIMEOUT_S)
async def book(job: str, step: int, into: str, pace_s: float) -> str:
    """Does what may be repeated with the same key."""
    return await act("mark", job, step, into, pace_s)
