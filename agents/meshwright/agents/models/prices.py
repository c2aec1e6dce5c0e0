"""What models cost: from a file of one's own, else from the list that genai-prices brings; nobody is asked."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshwright.agents.models.model import Usage
from meshwright.core.errors import PriceUnknownError, SetupError
from meshwright.core.mistake import mistakes

log = structlog.get_logger("prices")
FREE_PROVIDERS = frozenset({"offline", "scripted", "hashing"})
"""They call nobody."""
MILLION = 1_000_000
MAX_FILE_BYTES = 2**20
MAX_MODELS = 1_000
DEAREST = 10**12


class Price(BaseModel):
    """What a model costs, in millionths of a US dollar a million tokens: 3000000 is three dollars.

    Attributes:
        input: Tokens read.
        output: Tokens written.
        cache_read: Tokens read from the provider's cache; None: as `input`.
        cache_write: Tokens written to it; None: as `input`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: int = Field(ge=0, le=DEAREST)
    output: int = Field(ge=0, le=DEAREST)
    cache_read: int | None = Field(default=None, ge=0, le=DEAREST)
    cache_write: int | None = Field(default=None, ge=0, le=DEAREST)

    def cost(self, usage: Usage) -> int:
        """Returns what a call costs, in millionths of a US dollar, rounded up."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        total = usage.input_tokens * self.input + usage.output_tokens * self.output
        total += usage.cache_read_tokens * cache_read + usage.cache_write_tokens * cache_write
        return -(-total // MILLION)


FREE = Price(input=0, output=0)


class Prices:
    """Knows what models cost.

    Args:
        own: Prices by a model's name, before those of the list.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})
        self._unknown: set[tuple[str, str]] = set()

    def cost(self, provider: str, model: str, usage: Usage) -> int:
        """Returns what a call costs, in millionths of a US dollar, rounded up.

        Raises:
            PriceUnknownError: Nobody has said what the model costs.
        """
        if model not in self._own and provider not in FREE_PROVIDERS:
            return listed(provider, model, usage)
        return self._own.get(model, FREE).cost(usage)

    def are_known(self, provider: str, model: str) -> bool:
        """Whether somebody has said what a model costs."""
        try:
            self.cost(provider, model, Usage())
        except PriceUnknownError:
            return False
        return True

    def cost_or_nothing(self, provider: str, model: str, usage: Usage) -> int:
        """Returns what a call costs; 0 where nobody knows, which the log says once a model."""
        if (provider, model) in self._unknown:
            return 0
        try:
            return self.cost(provider, model, usage)
        except PriceUnknownError as error:
            self._unknown.add((provider, model))
            log.warning("price_unknown", model=model, error=error.message)
            return 0

    def most(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> int:
        """Returns what a call costs at the most, whatever the provider's cache takes of it; raises as `cost`."""
        plain = self.cost(provider, model, Usage(input_tokens, output_tokens))
        return max(plain, self.cost(provider, model, Usage(0, output_tokens, 0, input_tokens)))


def listed(provider: str, model: str, usage: Usage) -> int:
    """Looks a model up in the list.

    Raises:
        PriceUnknownError: It is not there, or there is no list.
    """
    try:
        import genai_prices  # takes a third of a second
    except ImportError:
        hint = 'install the list (pip install "meshwright[llm]") or write a file of your own'
        raise unknown(model, hint) from None
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens  # the list counts cached ones in
    counted = genai_prices.Usage(
        input_tokens=read,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        found = genai_prices.calc_price(counted, model, provider_id=provider)
    except LookupError:
        raise unknown(model, f"the list has no such model of {provider}") from None
    numerator, denominator = (found.total_price * MILLION).as_integer_ratio()
    return -(-numerator // denominator)


def unknown(model: str, hint: str) -> PriceUnknownError:
    """The refusal to count what nobody can count."""
    setting = f'"{model}": {{input: ..., output: ...}}'
    return PriceUnknownError(
        f"nobody knows what the model {model} costs: {hint}; MESHWRIGHT_PRICES=FILE with the line {setting} "
        "(millionths of a US dollar a million tokens; 0: free) says it"
    )


def load(path: str) -> Prices:
    """Reads a file of prices, YAML `MODEL: {input, output, cache_read, cache_write}`; empty path: the list alone.

    Raises:
        SetupError: The file cannot be read or is none of that kind; one line says what is wrong where.
    """
    return Prices(_read(Path(path)) if path else {})


def _read(path: Path) -> dict[str, Price]:
    import yaml  # only who has a file of prices waits for it

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SetupError(f"the prices in {path} have more than {MAX_FILE_BYTES} bytes")
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"cannot read the prices in {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"the prices in {path} are no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(told, dict) or len(told) > MAX_MODELS:
        raise SetupError(f"the prices in {path} must be at most {MAX_MODELS} lines MODEL: {{input: ..., output: ...}}")
    return {str(model): _price(path, str(model), price) for model, price in told.items()}


def _price(path: Path, model: str, price: object) -> Price:
    try:
        return Price.model_validate(price)
    except ValidationError as error:
        first = mistakes(error, Price)[0]
        place = ".".join(map(str, (model, *first.location)))
        raise SetupError(f"the prices in {path} are wrong at {place}: {first.words}") from None
