"""Embedders: text becomes a vector whose direction says what it is about."""

import math
import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Protocol

from meshwright.agents.sentences import words
from meshwright.core.errors import SetupError
from meshwright.core.settings import provider_key

Vector = list[float]
DIMENSIONS = 384
WORD, PAIR, PIECE = 1.0, 0.5, 0.3
"""What a word, two neighbouring words, and three neighbouring characters weigh."""
PIECE_LENGTH = 3
MOST_CHARACTERS = 8_000
OPENAI_URL = "https://api.openai.com/v1"
FORMS = "hashing, openai:MODEL[@BASE_URL]"

_OPENAI = re.compile(r"openai:(?P<model>[^@\s]+)(@(?P<url>https?://\S+))?")


class Embedder(Protocol):
    """Turns texts into vectors of one length; texts about the same lie close to each other."""

    @property
    def name(self) -> str:
        """Tells vectors of different embedders apart: `[A-Za-z0-9._:-]+`."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Returns a vector of length 1 (0 where a text says nothing) for each text.

        Raises:
            ModelUnavailableError: The provider failed in a way that may pass.
            RateLimitedError: The provider asks to slow down.
            ModelRejectedError: The request can never succeed as it is.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


class HashingEmbedder:
    """An embedder without a model: texts that share words, or parts of words, lie close to each other.

    Words are hashed into a fixed number of places ("feature hashing", Weinberger et al. 2009). It knows no synonyms.
    """

    @property
    def name(self) -> str:
        """`hashing-1`: another way to hash gets another number."""
        return "hashing-1"

    @property
    def dimensions(self) -> int:
        """384."""
        return DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Returns a vector for each text; the same text always has the same one."""
        return [hashed(text) for text in texts]

    async def close(self) -> None:
        """Holds nothing open."""


def hashed(text: str) -> Vector:
    """Hashes words, pairs of words and their parts into a vector of length 1. Pure."""
    vector = [0.0] * DIMENSIONS
    found = words(text[:MOST_CHARACTERS])
    weighed = [(word, WORD) for word in found]
    weighed += [(f"{one} {other}", PAIR) for one, other in pairwise(found)]
    weighed += [
        (f"#{word[start : start + PIECE_LENGTH]}", PIECE)
        for word in found
        for start in range(len(word) - PIECE_LENGTH + 1)
    ]
    for feature, weight in weighed:
        number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest())
        vector[number % DIMENSIONS] += weight if number >> 63 else -weight
    return normalised(vector)


def normalised(vector: Sequence[float]) -> Vector:
    """Returns the vector of length 1 with the same direction; one without a direction as it is."""
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else list(vector)


def embedder_from(spec: str) -> Embedder:
    """Builds the embedder that a specification names; only that one's code is imported.

    Args:
        spec: `hashing`, or `openai:MODEL[@BASE_URL]`; without a URL it is OpenAI's own service.

    Raises:
        SetupError: The specification has no known form, or what it needs is missing.
    """
    if spec == "hashing":
        return HashingEmbedder()
    match = _OPENAI.fullmatch(spec)
    if not match:
        raise SetupError(f"there is no embedder {spec!r}: use one of {FORMS}")
    key = provider_key("openai")
    if not (match["url"] or key):
        raise SetupError(f"{spec} needs a key: set OPENAI_API_KEY, or name a server with {spec}@BASE_URL")
    from meshwright.agents.openai_embedder import OpenAIEmbedder

    return OpenAIEmbedder(match["model"], match["url"] or OPENAI_URL, key)
