"""Adapter: Lakera Guard (prompt attacks, content, personal data), over its HTTP interface, version 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.agents.guardrails.remote import Remote
from meshwright.core.errors import MeshError, ToolFailedError

URL = "https://api.lakera.ai/v2/guard"
ROLES: Mapping[Point, str] = {
    "input": "user",
    "tool_arguments": "assistant",
    "tool_result": "user",
    "output": "assistant",
}
MAX_DETECTORS = 10


@dataclass(frozen=True)
class Lakera:
    """Follows what Lakera Guard says of a text; detectors and thresholds are those of the project there.

    Attributes:
        key: Of the account; empty for a server of one's own that asks for none.
        project: Id of the project whose policy counts; empty: the account's own.
        url: The service, or one of one's own.
        actions: What follows, by point.
        on_failure: What follows when it does not answer.
        limit_s: Seconds for an answer.
        name: In the journal.
    """

    key: str = field(repr=False)
    project: str = ""
    url: str = URL
    actions: Mapping[Point, Action] = field(default_factory=lambda: {"input": "block", "tool_result": "ask"})
    on_failure: Action = "block"
    limit_s: float = 5.0
    name: str = "lakera"
    _remote: Remote = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remote", Remote(self.url, self.key))

    @property
    def points(self) -> Sequence[Point]:
        """Those that have an action."""
        return tuple(self.actions)

    async def check(self, subject: Subject) -> Verdict:
        """Has a text screened."""
        messages = [{"role": ROLES[subject.point], "content": subject.text}]
        if subject.point == "output" and subject.instructions:
            messages.insert(0, {"role": "system", "content": subject.instructions})
        document: dict[str, Any] = {"messages": messages, "breakdown": True}
        if self.project:
            document["project_id"] = self.project
        try:
            why = flagged_in(await self._remote.post(document, self.limit_s))
        except MeshError:
            return Verdict(self.on_failure, "Lakera Guard did not answer")
        return Verdict(self.actions[subject.point], f"Lakera Guard: {why}") if why else ALLOW


def flagged_in(answer: Any) -> str:
    """Returns which detectors were set off; empty: nothing was flagged.

    Raises:
        ToolFailedError: The answer is another one than Lakera gives.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("flagged"), bool):
        raise ToolFailedError("Lakera's answer does not say whether anything was flagged")
    if not answer["flagged"]:
        return ""
    breakdown = answer.get("breakdown")
    hits = (
        [one for one in breakdown if isinstance(one, dict) and one.get("detected")]
        if isinstance(breakdown, list)
        else []
    )
    detectors = sorted({str(one.get("detector_type", ""))[:60] for one in hits} - {""})
    return ", ".join(detectors[:MAX_DETECTORS]) or "flagged"
