"""Secrets: keys, tokens and passwords, found by their forms and taken out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.agents.guardrails.look import look
from meshwright.core.secret_forms import spans
from meshwright.core.text_span import said, without


@dataclass(frozen=True)
class Secrets:
    """Takes keys, tokens and passwords out, or stops at them.

    Attributes:
        action: What follows.
        points: Where it stands.
        name: In the journal.
    """

    action: Action = "redact"
    points: Sequence[Point] = ("tool_result", "output")
    name: str = "secrets"

    def check(self, subject: Subject) -> Verdict:
        """Looks for secrets."""
        found = look(subject.text, spans)
        if not found:
            return ALLOW
        return Verdict(self.action, said(found), without(subject.text, found) if self.action == "redact" else "")
