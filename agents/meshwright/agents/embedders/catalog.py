"""Which embedder a process uses, spelled in its settings; only that one's code is imported."""

import re

from meshwright.agents.embedders.embedder import Embedder
from meshwright.agents.models.catalog import OWN_URLS
from meshwright.core.errors import SetupError
from meshwright.core.settings import provider_key

FORMS = "hashing, openai:MODEL[@BASE_URL]"

_OPENAI = re.compile(r"openai:(?P<model>[^@\s]+)(@(?P<url>https?://\S+))?")


def embedder_from(spec: str) -> Embedder:
    """Builds the embedder that a specification names; only that one's code is imported.

    Args:
        spec: `hashing`, or `openai:MODEL[@BASE_URL]`; without a URL it is OpenAI's own service.

    Raises:
        SetupError: The specification has no known form, or what it needs is missing.
    """
    if spec == "hashing":
        from meshwright.agents.embedders.hashing import HashingEmbedder

        return HashingEmbedder()
    match = _OPENAI.fullmatch(spec)
    if not match:
        raise SetupError(f"there is no embedder {spec!r}: use one of {FORMS}")
    key = provider_key("openai")
    if not (match["url"] or key):
        raise SetupError(f"{spec} needs a key: set OPENAI_API_KEY, or name a server with {spec}@BASE_URL")
    try:
        from meshwright.agents.embedders.openai import OpenAIEmbedder
    except ModuleNotFoundError as error:
        raise SetupError(f"the package {error.name} is missing: pip install 'meshwright[llm]'") from None

    return OpenAIEmbedder(match["model"], match["url"] or OWN_URLS["openai"], key)
