"""What a guardrail is: it looks at a text at one of four points, and says what follows. Pure."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from meshwright.agents.guardrails.normalise import Normal

Point = Literal["input", "tool_arguments", "tool_result", "output"]
"""The task's prompt, what the model wants to call a tool with, what the tool said, what the model said."""
Action = Literal["allow", "redact", "block", "ask"]
POINTS: tuple[Point, ...] = ("input", "tool_arguments", "tool_result", "output")
ACTIONS: tuple[Action, ...] = ("allow", "redact", "ask", "block")
"""From the mildest to the strictest."""


@dataclass
class Subject:
    """What a guardrail looks at.

    Attributes:
        point: Where it stands.
        text: What is looked at. Of arguments and results it is every key and value, one after the other.
        tool: Name of the tool, at the points of a call.
        effect: `pure`, `idempotent` or `non_idempotent`, of that tool.
        approval: What the agent's `approvals` say of that tool; empty: nothing.
        tenant: Whose task it is.
        agent: The agent's name.
        instructions: The agent's system text.
        canary: Stands in the instructions and nowhere else; empty: there is none.
        trusted: What the one who gave the task wrote.
        untrusted: What tools and other agents have said so far.
        is_tainted: Whether content that others wrote has entered the conversation.
        is_suspect: Whether a guardrail has asked for care with some of that content.
    """

    point: Point
    text: str
    tool: str = ""
    effect: str = ""
    approval: str = ""
    tenant: str = ""
    agent: str = ""
    instructions: str = ""
    canary: str = ""
    trusted: str = ""
    untrusted: Sequence[str] = ()
    is_tainted: bool = False
    is_suspect: bool = False

    @cached_property
    def normal(self) -> Normal:
        """The text as rules compare it; made once for all of them."""
        return Normal(self.text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guardrail says.

    Attributes:
        action: What follows.
        reason: One sentence for people; it quotes nothing of what it is about.
        text: With `redact`, what stands in the place of the subject's text.
    """

    action: Action = "allow"
    reason: str = ""
    text: str = field(default="", repr=False)


ALLOW = Verdict()


class Guardrail(Protocol):
    """A rule. One that waits for nothing answers at once; one that calls out writes `async def check`."""

    @property
    def name(self) -> str:
        """`[a-z][a-z0-9_.-]{0,62}`; stands in the journal beside what it said."""
        ...

    @property
    def points(self) -> Sequence[Point]:
        """Where it stands."""
        ...

    def check(self, subject: Subject) -> Verdict | Awaitable[Verdict]:
        """Looks at a text; must not change the subject."""
        ...
