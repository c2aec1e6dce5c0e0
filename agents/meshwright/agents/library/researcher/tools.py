"""The researcher's tools: search the user's documents, read a passage."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from meshwright.agents.library.researcher.corpus import Corpus, UnknownPassageError
from meshwright.agents.settings import AgentSettings
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.registry import tool
from meshwright.registry.tool import LocalTool


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found; a higher score fits better."""

    id: str
    source: str
    title: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found, best first."""

    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class Document:
    """A passage with what stands around it."""

    id: str
    source: str
    title: str
    text: str


@functools.cache
def corpus() -> Corpus:
    """Opens the folder that `MESHWRIGHT_DOCS` names, once.

    Raises:
        SetupError: There is no such folder, or it cannot be read.
    """
    folder = AgentSettings.load().docs
    if not folder:
        raise SetupError("there are no documents: start with --docs DIR (MESHWRIGHT_DOCS)")
    return Corpus.open(Path(folder))


def prepare() -> None:
    """Indexes the documents before the first question comes; without a folder the agent says so when asked."""
    if AgentSettings.load().docs:
        corpus()


def tools_over(corpus: Callable[[], Corpus]) -> tuple[LocalTool, LocalTool]:
    """Makes the tools that search and read a corpus, which is asked for with each call."""

    @tool(name="docs.search", effect="pure")
    def search(
        query: Annotated[str, Field(min_length=1, max_length=4_000, description="Keywords or a question")],
        limit: Annotated[int, Field(ge=1, le=20, description="How many passages")] = 6,
    ) -> Hits:
        """Searches the user's documents and returns the passages that fit best, each with its id and source."""
        found = corpus().search(query, limit)
        return Hits([Hit(hit.id, hit.source, hit.title, hit.text, hit.score) for hit in found])

    @tool(name="docs.read", effect="pure")
    def read(
        id: Annotated[str, Field(min_length=1, max_length=1_024, description="An id that docs.search gave")],  # noqa: A002
    ) -> Document:
        """Reads a passage of the user's documents together with what stands around it."""
        try:
            passage = corpus().read(id)
        except UnknownPassageError as error:
            raise InvalidRequestError(str(error), fields={"arguments/id": "is no id that docs.search gave"}) from None
        return Document(passage.id, passage.source, passage.title, passage.text)

    return search, read


search, read = tools_over(corpus)
