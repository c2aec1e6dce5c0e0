"""Which model a process uses, spelled on its command line; only that model's code is imported."""

import re
from collections.abc import Callable

from meshwright.agents.models.model import Model
from meshwright.core.errors import SetupError
from meshwright.core.settings import provider_key

OWN_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Where the providers themselves serve their models, by their names."""
FORMS = "offline[:SECONDS] (up to 60), scripted:FILE, openai:MODEL[@BASE_URL], anthropic:MODEL[@BASE_URL]"

_SECONDS = re.compile(r"([1-5]?[0-9](\.[0-9]+)?|60)?")
_CREDENTIALS = re.compile(r"(@|//)[^@/]*:[^@/]*@")
_WITH_URL = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)", re.IGNORECASE)


def model_from(spec: str | Model, *, timeout_s: float = 120.0) -> Model:
    """Builds the model that a specification names; a model is returned as it is.

    Args:
        spec: `offline`, `scripted:FILE`, `openai:MODEL@BASE_URL`, or `anthropic:MODEL@BASE_URL`. `offline:0.3` takes
            its time, that many seconds an answer, up to 60. Without `@BASE_URL` it is the provider's own service. A
            model's name may hold colons, slashes and at signs: `openai:llama3:8b@http://127.0.0.1:11434/v1`.
        timeout_s: Most seconds of one call of a provider.

    Raises:
        SetupError: The specification has no known form, or what it names is missing: a file, a package, or the key
            (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`), which only a server of one's own may do without.
    """
    if not isinstance(spec, str):
        return spec
    kind, _, rest = spec.strip().partition(":")
    if kind == "offline" and _SECONDS.fullmatch(rest):
        from meshwright.agents.models.offline import OfflineModel

        return OfflineModel(float(rest or 0))
    if kind == "scripted" and rest:
        from meshwright.agents.models.scripted import ScriptedModel

        return ScriptedModel(rest)
    if kind in OWN_URLS and rest:
        key = provider_key(kind)
        model, url = _model_and_url(kind, rest, has_key=bool(key))
        return _provider(kind)(model, url, key, timeout_s)
    raise SetupError(f"there is no model {_shown(spec)!r}: use one of {FORMS}")


def _model_and_url(kind: str, rest: str, *, has_key: bool) -> tuple[str, str]:
    match = _WITH_URL.fullmatch(rest)
    if match:
        return match["model"], match["url"]
    if "@" in rest[1:]:
        raise SetupError(f"the base URL in {kind}:{_shown(rest)} begins with neither http:// nor https://")
    if not has_key:
        variable = f"{kind.upper()}_API_KEY"
        raise SetupError(f"{kind}:{rest} needs a key: set {variable}, or name a server with {kind}:{rest}@BASE_URL")
    return rest, OWN_URLS[kind]


def _shown(spec: str) -> str:
    """Leaves out the credentials of a base URL, with its scheme or without."""
    return _CREDENTIALS.sub(r"\1", spec)


def _provider(kind: str) -> Callable[[str, str, str, float], Model]:
    try:
        if kind == "openai":
            from meshwright.agents.models.openai import OpenAIModel

            return OpenAIModel
        from meshwright.agents.models.anthropic import AnthropicModel
    except ModuleNotFoundError as error:
        raise SetupError(f"the package {error.name} is missing: pip install 'meshwright[llm]'") from None
    return AnthropicModel
