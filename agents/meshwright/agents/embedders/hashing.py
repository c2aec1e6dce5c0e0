"""Embeddings without a model."""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

from meshwright.agents.embedders.embedder import DIMENSIONS, MOST_CHARACTERS, Embedded, Vector, normalised
from meshwright.agents.sentences import words

WORD, PAIR, PIECE = 1.0, 0.5, 0.3
"""What a word, two neighbouring words, and three neighbouring characters weigh."""
PIECE_LENGTH = 3


class HashingEmbedder:
    """An embedder without a model: texts that share words, or parts of words, lie close to each other.

    Words are hashed into a fixed number of places ("feature hashing", Weinberger et al. 2009). It knows no synonyms.
    """

    @property
    def provider(self) -> str:
        """`hashing`."""
        return "hashing"

    @property
    def model(self) -> str:
        """As its name."""
        return self.name

    @property
    def name(self) -> str:
        """`hashing-1`: another way to hash gets another number."""
        return "hashing-1"

    @property
    def dimensions(self) -> int:
        """384."""
        return DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Returns a vector for each text; the same text always has the same one."""
        return Embedded([hashed(text) for text in texts])

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
