"""Embeddings of any OpenAI-compatible endpoint, by the official SDK."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from meshwright.agents.embedders.embedder import DIMENSIONS, MOST_CHARACTERS, Vector, normalised
from meshwright.core.errors import (
    MeshError,
    ModelRejectedError,
    ModelUnavailableError,
    RateLimitedError,
    SetupError,
)
from meshwright.core.server import is_loopback

TIMEOUT_S = 20.0
NO_KEY = "none"
"""Stands in for a key, which the SDK insists on, at servers that need none."""


class OpenAIEmbedder:
    """An embedder that is asked once a call.

    Args:
        model: The model's name at the provider; it has to know the parameter `dimensions`.
        base_url: Where it is served, usually ending in `/v1`. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.

    Raises:
        SetupError: The `openai` package is missing, or the base URL is none.
    """

    def __init__(self, model: str, base_url: str, api_key: str) -> None:
        try:
            import openai
        except ImportError:
            raise SetupError("the openai package is missing: pip install 'meshwright[llm]'") from None
        parts = urlsplit(base_url)
        if not parts.hostname:
            raise SetupError("the base URL of the embedder is none: write http://HOST:PORT/v1")
        self._place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._model = model
        self._status_error, self._failures = openai.APIStatusError, (openai.OpenAIError, ValueError)
        self._client = openai.AsyncOpenAI(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            timeout=TIMEOUT_S,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not is_loopback(parts.hostname),
                follow_redirects=False,  # the key would go along
            ),
        )

    @property
    def name(self) -> str:
        """The model's name at the provider, as it can stand in a key."""
        return f"openai-{self._model}".replace(" ", "-").replace("/", "-")

    @property
    def dimensions(self) -> int:
        """384."""
        return DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Asks for the vectors of texts; see `Embedder.embed` for what it raises."""
        asked = [text[:MOST_CHARACTERS] or " " for text in texts]
        try:
            reply = await self._client.embeddings.create(
                model=self._model, input=asked, dimensions=DIMENSIONS, encoding_format="float"
            )
            vectors = [normalised(one.embedding) for one in sorted(reply.data, key=lambda one: one.index)]
        except self._failures as error:
            raise self._failure(error) from None
        except (TypeError, AttributeError):
            raise ModelUnavailableError(f"{self._place} sent something that is no embedding") from None
        if len(vectors) != len(texts) or any(len(vector) != DIMENSIONS for vector in vectors):
            told = f"{self._place} does not give {DIMENSIONS} numbers a text: use a model that knows `dimensions`"
            raise ModelRejectedError(told)
        return vectors

    def _failure(self, error: Any) -> MeshError:
        """Sorts what the SDK raised; the provider's own words, which may hold the key, are left out."""
        if not isinstance(error, self._status_error):
            return ModelUnavailableError(f"{self._place} cannot be reached, or sent something that is no embedding")
        status: int = error.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return RateLimitedError(f"{self._place} asks to slow down")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ModelUnavailableError(f"{self._place} failed with status {status}")
        told = f"{self._place} refused to embed with status {status}: check model, key and base URL"
        return ModelRejectedError(told)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()
