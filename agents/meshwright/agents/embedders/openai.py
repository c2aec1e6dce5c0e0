"""Embeddings of any OpenAI-compatible endpoint, by the official SDK."""

import math
import re
from collections.abc import Sequence
from typing import Any

import openai

from meshwright.agents.embedders.embedder import DIMENSIONS, MOST_CHARACTERS, Embedded, Vector, normalised
from meshwright.agents.models.endpoint import Endpoint
from meshwright.agents.models.estimate import counted
from meshwright.agents.models.failure import REFUSED
from meshwright.agents.models.model import estimated_tokens
from meshwright.core.errors import ModelRejectedError

TIMEOUT_S = 20.0

_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9._:-]")


class OpenAIEmbedder:
    """An embedder that is asked once a call.

    Args:
        model: The model's name at the provider; it has to know the parameter `dimensions`.
        base_url: Where it is served, usually ending in `/v1`. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.
        timeout_s: Most seconds of one call.

    Raises:
        SetupError: The base URL is none, or the key holds what no header can.
    """

    def __init__(self, model: str, base_url: str, api_key: str, timeout_s: float = TIMEOUT_S) -> None:
        self._endpoint = Endpoint(
            openai, model, base_url, api_key, timeout_s, variable="OPENAI_API_KEY", url_hint="most end in /v1"
        )
        self._model = model
        self._client = openai.AsyncOpenAI(**self._endpoint.client_options())

    @property
    def provider(self) -> str:
        """`openai`."""
        return "openai"

    @property
    def model(self) -> str:
        """The model's name at the provider."""
        return self._model

    @property
    def name(self) -> str:
        """The model's name at the provider, as it can stand in a key."""
        return f"openai-{_NOT_IN_A_KEY.sub('-', self._model)}"

    @property
    def dimensions(self) -> int:
        """384."""
        return DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Asks for the vectors of texts; see `Embedder.embed` for what it raises."""
        asked = [text[:MOST_CHARACTERS] or " " for text in texts]
        reply = self._client.embeddings.create(
            model=self._model, input=asked, dimensions=DIMENSIONS, encoding_format="float"
        )
        return await self._endpoint.ask(reply, lambda sent: self._embedded(sent, asked))

    def _embedded(self, sent: Any, asked: Sequence[str]) -> Embedded:
        """Reads the vectors in the order of the texts, whichever order they came in."""
        found = {one.index: one.embedding for one in sent.data}
        vectors = [_read(found[place]) for place in range(len(asked))]
        if any(len(vector) != DIMENSIONS for vector in vectors):
            why, advice = f"it does not give {DIMENSIONS} numbers a text", "use a model that knows `dimensions`"
            raise self._endpoint.origin.failed(ModelRejectedError, REFUSED, why, advice)
        tokens = counted(getattr(getattr(sent, "usage", None), "prompt_tokens", None))
        return Embedded(vectors, sum(map(estimated_tokens, asked)) if tokens is None else tokens)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()


def _read(numbers: Any) -> Vector:
    """Reads a vector, with length 1.

    Raises:
        ValueError: It has no length: a number is none, or too large.
    """
    vector = [float(number) for number in numbers]
    if not math.isfinite(sum(number * number for number in vector)):
        raise ValueError("the vector has no length")
    return normalised(vector)
