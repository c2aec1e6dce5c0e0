"""Adapter: Presidio's analyzer (names, places and more, by language models), over its HTTP interface."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict
from meshwright.agents.guardrails.remote import Remote
from meshwright.core.errors import MeshError, ToolFailedError
from meshwright.core.text_span import Span, said, without


@dataclass(frozen=True)
class Presidio:
    """Takes out what a Presidio analyzer finds.

    Attributes:
        url: Its `/analyze`, for example `http://127.0.0.1:5002/analyze`.
        entities: What is looked for, in Presidio's names (`PERSON`, `LOCATION`, ...); empty: all that it knows.
        language: ISO 639-1.
        threshold: 0..1; the score from which a finding counts.
        action: What follows.
        points: Where it stands.
        on_failure: What follows when it does not answer.
        limit_s: Seconds for an answer.
        name: In the journal.
    """

    url: str
    entities: Sequence[str] = ()
    language: str = "en"
    threshold: float = 0.5
    action: Action = "redact"
    points: Sequence[Point] = ("tool_result", "output")
    on_failure: Action = "block"
    limit_s: float = 5.0
    name: str = "presidio"
    _remote: Remote = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remote", Remote(self.url))

    async def check(self, subject: Subject) -> Verdict:
        """Has a text analysed."""
        document: dict[str, Any] = {"text": subject.text, "language": self.language, "score_threshold": self.threshold}
        if self.entities:
            document["entities"] = list(self.entities)
        try:
            found = spans_in(await self._remote.post(document, self.limit_s), len(subject.text), self.threshold)
        except MeshError:
            return Verdict(self.on_failure, "Presidio did not answer")
        if not found:
            return ALLOW
        return Verdict(self.action, said(found), without(subject.text, found) if self.action == "redact" else "")


def spans_in(answer: Any, length: int, threshold: float) -> list[Span]:
    """Reads findings; offsets count characters.

    Raises:
        ToolFailedError: The answer is another one than Presidio gives.
    """
    try:
        found = [
            Span(int(one["start"]), int(one["end"]), str(one["entity_type"]).lower().replace("_", " ")[:40])
            for one in answer
            if one["score"] >= threshold
        ]
    except (KeyError, TypeError, ValueError):
        raise ToolFailedError("the analyzer's answer is no list of findings") from None
    if any(not 0 <= span.start < span.end <= length for span in found):
        raise ToolFailedError("the analyzer's findings lie outside of the text")
    return found
