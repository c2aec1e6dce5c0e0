"""An HTTP server that speaks the wire format of OpenAI's embeddings."""

import json
from typing import Any

from meshwright.agents.embedders.embedder import DIMENSIONS
from meshwright.agents.embedders.hashing import hashed
from tests.agents.models.conftest import OpenAIServer


class EmbeddingServer(OpenAIServer):
    """Answers from a list; the last reply repeats."""

    def gives(self, *vectors: Any, tokens: Any = 5, **reply: Any) -> None:
        """Adds a reply of vectors, the last text's first."""
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        sent = {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": tokens}}
        self.sends(json.dumps(sent), **reply)

    def embeds(self, text: str, **reply: Any) -> None:
        """Adds a reply of one text's vector, as shared words make it."""
        self.gives(hashed(text), **reply)

    def sends(self, body: str, **reply: Any) -> None:
        """Adds a reply as it is."""
        self.replies_with(body.encode(), "application/json", **reply)


def axis(place: int, length: float = 1.0) -> list[float]:
    """Returns a vector along one of the axes."""
    return [length if place == at else 0.0 for at in range(DIMENSIONS)]
