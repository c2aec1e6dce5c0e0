"""Models behind any OpenAI-compatible endpoint, by the official SDK."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from meshwright.agents.models.model import Answer, JsonObject, OnText, Prompt
from meshwright.agents.models.openai_failure import failure_of
from meshwright.agents.models.openai_request import names_of, request_of
from meshwright.agents.models.openai_stream import Completion
from meshwright.core.errors import SetupError
from meshwright.core.server import is_loopback

CONNECT_S = 10.0
NO_KEY = "none"
"""Stands in for a key, which the SDK insists on, at servers that need none."""
OPENAI_HOSTS = (".openai.com", ".azure.com")
"""Endings of hosts that know the limit of output tokens by its newer name only."""


class OpenAIModel:
    """A model that is asked by streamed chat completions.

    Args:
        model: The model's name at the provider.
        base_url: Where it is served, usually ending in `/v1`. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.
        timeout_s: Longest silence before the provider counts as gone.

    Raises:
        SetupError: The `openai` package is missing, or the base URL is none.
    """

    def __init__(self, model: str, base_url: str, api_key: str, timeout_s: float = 120.0) -> None:
        try:
            import openai
        except ImportError:
            raise SetupError("the openai package is missing: pip install 'meshwright[llm]'") from None
        host, self._place = _host_and_place(base_url)
        self._model = model
        self._key = api_key
        self._bound = "max_completion_tokens" if f".{host}".endswith(OPENAI_HOSTS) else "max_tokens"
        self._failures: tuple[type[Exception], ...] = (openai.OpenAIError, ValueError)
        self._client = openai.AsyncOpenAI(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            timeout=openai.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(host)),
        )

    @property
    def provider(self) -> str:
        """`openai`."""
        return "openai"

    @property
    def name(self) -> str:
        """The model's name at the provider."""
        return self._model

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks the model once.

        A call whose arguments are not a JSON object comes back with the one argument `openai_stream.NOT_JSON`.

        Raises:
            ModelUnavailableError: The provider cannot be reached, failed, or broke off.
            RateLimitedError: The provider asks to slow down; `retry_after_s` says for how long.
            ModelRejectedError: Key, model or request are wrong.
        """
        names = names_of(prompt)
        completion = Completion(prompt, names, self._place)
        async with aclosing(self._chunks(request_of(prompt, self._model, names, self._bound))) as chunks:
            async for chunk in chunks:
                if text := completion.add(chunk):
                    on_text(text)
        return completion.answer(self.provider, self.name)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()

    async def _chunks(self, request: JsonObject) -> AsyncGenerator[Any, None]:
        try:
            async with await self._client.chat.completions.create(stream=True, **request) as stream:
                async for chunk in stream:
                    yield chunk
        except self._failures as error:
            raise failure_of(error, place=self._place, model=self._model, key=self._key) from None


def _host_and_place(base_url: str) -> tuple[str, str]:
    """Returns the host, and the URL as it may be shown: without credentials."""
    try:
        parts = urlsplit(base_url)
        host = parts.hostname if parts.scheme in {"http", "https"} and parts.port != 0 else None
    except ValueError:
        parts, host = urlsplit(""), None
    if not host:
        raise SetupError("the base URL of the model is none: write http://HOST:PORT/v1")
    return host, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
