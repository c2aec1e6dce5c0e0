"""The summarizer's tool: the sentences of a text that answer a question best, word for word."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meshwright.agents.extract import extract, sections
from meshwright.registry import tool


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as it stands in its source."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The chosen sentences, best first."""

    sentences: list[Sentence]


@tool(name="summary.extract", effect="pure")
def summarize(
    text: Annotated[
        str, Field(min_length=1, max_length=200_000, description="Text, or sections led by 'source: NAME'")
    ],
    question: Annotated[str, Field(max_length=4_000, description="What the summary is for")] = "",
    sentences: Annotated[int, Field(ge=1, le=20, description="How many sentences")] = 6,
) -> Summary:
    """Chooses the sentences that answer the question best, word for word and each with its source."""
    chosen = extract(question, sections(text), sentences)
    return Summary([Sentence(one.sentence, one.source) for one in chosen])
