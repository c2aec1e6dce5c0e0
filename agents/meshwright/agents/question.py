"""A question: what an answer is kept under."""

from dataclasses import dataclass

from meshwright.agents.task import TaskName


@dataclass(frozen=True, slots=True)
class Question:
    """All that an answer depends on.

    Attributes:
        name: Whose task asks it.
        scope: Digest of all that has to be equal for questions to be compared.
        answer_id: Digest of scope and question.
        text: The question where similar ones count; empty: only the same one does.
        vector: What it is found by, a byte a number; empty likewise.
    """

    name: TaskName
    scope: str
    answer_id: str
    text: str = ""
    vector: bytes = b""
