"""The call that a running tool serves."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from meshwright.gen.agents.v1.task_pb2 import EmbeddingUsage
from meshwright.registry.progress import Reporter


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a running tool may know of its call.

    Attributes:
        tenant: Whose call it is.
        principal: Who asked for the task.
        task_id: The task that calls.
        key: The same for every repetition of the same call: hand it to a backend that can deduplicate.
        agent_id: Agent that calls; `registry`: a call from outside of any task.
        session_id: Session of the task; empty: it has none. Of a child too: the session is its root's affair.
        is_tainted: Whether content that others wrote has entered the conversation of the task.
        ends: When the call's time is over, on the monotonic clock.
        reporter: Where progress goes; None: nobody watches.
        embedding: Where an agent's own memory tools say what embedding took; of other tools nobody reads it.
    """

    tenant: str
    principal: str
    task_id: str
    key: str
    agent_id: str = ""
    session_id: str = ""
    is_tainted: bool = False
    ends: float = float("inf")
    reporter: Reporter | None = field(default=None, repr=False, compare=False)
    embedding: EmbeddingUsage = field(default_factory=EmbeddingUsage, repr=False, compare=False)

    def seconds_left(self) -> float:
        """Returns how much of the call's time is left, all attempts included; never below 0."""
        return max(0.0, self.ends - time.monotonic())

    def progress(self, fraction: float, message: str = "") -> None:
        """Tells whoever watches how far the tool has come; may be called from any thread, as often as one likes.

        Args:
            fraction: 0..1, or negative: unknown.
            message: One line for people. It is shown as it is: a contract's `redact` does not reach it.
        """
        if self.reporter is not None:
            self.reporter.offer(fraction, message)


INVOCATION: ContextVar[Invocation] = ContextVar("invocation")


def current_invocation() -> Invocation:
    """Returns the call that the running tool serves."""
    return INVOCATION.get()
