"""What an embedder is: text becomes a vector whose direction says what it is about."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Vector = list[float]
DIMENSIONS = 384
MOST_CHARACTERS = 8_000
"""Of a text that are looked at."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of length 1 (0 where a text says nothing), one for each text, and the tokens that they took."""

    vectors: list[Vector]
    tokens: int = 0


class Embedder(Protocol):
    """Turns texts into vectors of one length; texts about the same lie close to each other."""

    @property
    def provider(self) -> str:
        """The kind of provider: `hashing`, `openai`."""
        ...

    @property
    def model(self) -> str:
        """The model's name at the provider, by which it has a price."""
        ...

    @property
    def name(self) -> str:
        """Tells vectors of different embedders apart: `[A-Za-z0-9._:-]+`."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Returns a vector for each text; nothing is tried again here.

        Raises:
            ModelUnavailableError: The provider failed in a way that may pass.
            RateLimitedError: The provider asks to slow down; `retry_after_s` says for how long, if it does.
            ModelRejectedError: The request can never succeed as it is.
            ResultTooLargeError: The provider sent more than an answer may have.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


def normalised(vector: Sequence[float]) -> Vector:
    """Returns the vector of length 1 with the same direction; one without a direction as it is."""
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else list(vector)
