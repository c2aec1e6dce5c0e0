"""What embeddings cost: bounded before, counted after."""

from meshwright.agents.embedders.embedder import MOST_CHARACTERS, Embedder, Vector
from meshwright.agents.models.model import Usage
from meshwright.agents.models.prices import FREE_PROVIDERS, Prices
from meshwright.core.errors import ModelRejectedError, RateLimitedError
from meshwright.gen.agents.v1.task_pb2 import EmbeddingUsage

BYTES_A_TOKEN = 2
TOKENS_A_TEXT = 16
"""Together a bound of what a provider counts for a text, as for a prompt."""


class MeteredEmbedder:
    """An embedder whose calls are counted.

    Args:
        embedder: Makes the vectors.
        prices: What they cost, by the model's input tokens.
    """

    def __init__(self, embedder: Embedder, prices: Prices) -> None:
        self._embedder = embedder
        self._prices = prices
        self._is_free = embedder.provider in FREE_PROVIDERS

    @property
    def name(self) -> str:
        """Tells vectors of different embedders apart."""
        return self._embedder.name

    def most_micros(self, text: str) -> int:
        """Returns what embedding a text costs at the most, in millionths of a US dollar.

        Raises:
            PriceUnknownError: Nobody has said what the model costs.
        """
        if self._is_free:
            return 0
        return self._prices.cost(self._embedder.provider, self._embedder.model, Usage(most_tokens(text)))

    async def embed(self, text: str, spent: EmbeddingUsage) -> Vector:
        """Returns a text's vector; see `Embedder.embed` for what it raises.

        Args:
            text: What to embed.
            spent: Is told what it took. While the call is under way, and where its answer is lost, that is the most
                that it may take; nothing where the provider has refused it, or where nobody is asked.
        """
        if self._is_free:
            return (await self._embedder.embed([text])).vectors[0]
        spent.CopyFrom(self._usage(most_tokens(text), is_estimated=True))
        try:
            embedded = await self._embedder.embed([text])
        except (RateLimitedError, ModelRejectedError):
            spent.Clear()
            raise
        spent.CopyFrom(self._usage(embedded.tokens))
        return embedded.vectors[0]

    def _usage(self, tokens: int, *, is_estimated: bool = False) -> EmbeddingUsage:
        model = self._embedder.model
        micros = self._prices.cost_or_nothing(self._embedder.provider, model, Usage(tokens))
        return EmbeddingUsage(model=model, tokens=tokens, cost_micros=micros, estimated=is_estimated)

    async def close(self) -> None:
        """Releases connections."""
        await self._embedder.close()


def most_tokens(text: str) -> int:
    """Bounds the tokens that a provider will count for a text: where money counts, no guess. Pure."""
    return len(text[:MOST_CHARACTERS].encode(errors="replace")) // BYTES_A_TOKEN + TOKENS_A_TEXT
