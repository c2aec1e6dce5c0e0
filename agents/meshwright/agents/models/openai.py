"""Models behind any OpenAI-compatible endpoint, by the official SDK."""

import openai

from meshwright.agents.models.endpoint import Endpoint
from meshwright.agents.models.model import Answer, OnText, Prompt
from meshwright.agents.models.names import names_of
from meshwright.agents.models.openai_request import request_of
from meshwright.agents.models.openai_stream import Completion

OPENAI_HOSTS = (".openai.com", ".azure.com")
"""Endings of hosts that know the limit of output tokens by its newer name only."""


class OpenAIModel:
    """A model that is asked by streamed chat completions, once a call.

    Args:
        model: The model's name at the provider.
        base_url: Where it is served, usually ending in `/v1`. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.
        timeout_s: Most seconds of one call, silence included.

    Raises:
        SetupError: The base URL is none, or the key holds what no header can.
    """

    def __init__(self, model: str, base_url: str, api_key: str, timeout_s: float = 120.0) -> None:
        self._endpoint = Endpoint(
            openai, model, base_url, api_key, timeout_s, variable="OPENAI_API_KEY", url_hint="most end in /v1"
        )
        self._model = model
        self._bound = "max_completion_tokens" if f".{self._endpoint.host}".endswith(OPENAI_HOSTS) else "max_tokens"
        self._client = openai.AsyncOpenAI(**self._endpoint.client_options())

    @property
    def provider(self) -> str:
        """`openai`."""
        return "openai"

    @property
    def name(self) -> str:
        """The model's name at the provider."""
        return self._model

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks the model; see `Model.answer` for what it raises.

        A call whose arguments are not a JSON object comes back with the one argument `calls.NOT_JSON`.
        """
        names = names_of(prompt)
        request = request_of(prompt, self._model, names, self._bound)
        completion = Completion(prompt, names, self._endpoint.origin)
        stream = self._client.chat.completions.create(stream=True, **request)
        await self._endpoint.read(stream, completion.add, on_text)
        return completion.answer(self.provider, self.name)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()
