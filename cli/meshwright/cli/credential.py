"""What a command shows the edge, so that it knows who is calling."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc

HEADER = "authorization"


class KeyedChannel:
    """A channel as stubs use one, whose every call bears an API key.

    Args:
        channel: Carries the calls.
        key: `mwk_...`, or a token.
    """

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        self._entry = (HEADER, f"Bearer {key}")

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Makes a method of a stub."""
        return self._keyed(self._channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Makes a streaming method of a stub."""
        return self._keyed(self._channel.unary_stream(*arguments, **options))

    def _keyed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, *, metadata: Sequence[tuple[str, str | bytes]] = (), **options: Any) -> Any:
            return method(request, metadata=[*metadata, self._entry], **options)

        return call
