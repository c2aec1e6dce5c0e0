"""Models behind Anthropic's Messages API, by the official SDK."""

import anthropic

from meshwright.agents.models.anthropic_request import request_of
from meshwright.agents.models.anthropic_stream import IncomingMessage
from meshwright.agents.models.endpoint import Endpoint
from meshwright.agents.models.model import Answer, OnText, Prompt
from meshwright.agents.models.names import names_of


class AnthropicModel:
    """A model that is asked by streamed messages, once a call.

    Args:
        model: The model's name at the provider.
        base_url: Where it is served, up to and without `/v1`. Loopback addresses are reached without a proxy.
        api_key: The key; may be empty where none is needed.
        timeout_s: Most seconds of one call, silence included.

    Raises:
        SetupError: The base URL is none, or the key holds what no header can.
    """

    def __init__(self, model: str, base_url: str, api_key: str, timeout_s: float = 120.0) -> None:
        self._endpoint = Endpoint(
            anthropic, model, base_url, api_key, timeout_s, variable="ANTHROPIC_API_KEY", url_hint="it ends before /v1"
        )
        self._model = model
        self._client = anthropic.AsyncAnthropic(
            **self._endpoint.client_options(),
            open_telemetry=False,  # trace ids stay in the mesh
        )

    @property
    def provider(self) -> str:
        """`anthropic`."""
        return "anthropic"

    @property
    def name(self) -> str:
        """The model's name at the provider."""
        return self._model

    async def answer(self, prompt: Prompt, on_text: OnText) -> Answer:
        """Asks the model; see `Model.answer` for what it raises.

        A call whose arguments are not a JSON object comes back with the one argument `calls.NOT_JSON`.
        """
        names = names_of(prompt)
        message = IncomingMessage(prompt, names, self._endpoint.origin)
        stream = self._client.messages.create(stream=True, **request_of(prompt, self._model, names))
        await self._endpoint.read(stream, message.add, on_text)
        return message.answer(self.provider, self.name)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()
