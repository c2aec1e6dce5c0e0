"""The reviewer's tool: claims held against sentences of sources."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from meshwright.agents.claims import Finding, review
from meshwright.agents.extract import Passage
from meshwright.registry import tool

MOST_CLAIMS = 20

Claim = Annotated[str, Field(min_length=1, max_length=2_000)]


@dataclass(frozen=True, slots=True)
class Source:
    """A text and its name."""

    source: Annotated[str, Field(min_length=1, max_length=1_024, description="Name, for example a file's path")]
    text: Annotated[str, Field(min_length=1, max_length=100_000)]


@dataclass(frozen=True, slots=True)
class Review:
    """One finding for each claim, in their order."""

    findings: list[Finding]


@tool(name="review.compare", effect="pure")
def compare(
    claims: Annotated[list[Claim], Field(min_length=1, max_length=MOST_CLAIMS, description="One statement each")],
    sources: Annotated[list[Source], Field(max_length=50, description="What they are held against")],
) -> Review:
    """Holds claims against sources by words, numbers and negations, and quotes the sentence that decides each."""
    return Review(review(claims, [Passage(one.source, one.text) for one in sources]))
