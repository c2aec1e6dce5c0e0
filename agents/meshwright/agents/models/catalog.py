"""Which model a process uses, spelled on its command line; only that model's code is imported."""

import re

from meshwright.agents.models.model import Model
from meshwright.core.errors import SetupError

OPENAI_URL = "https://api.openai.com/v1"
FORMS = "offline[:SECONDS], scripted:FILE, openai:MODEL@BASE_URL"

_SECONDS = re.compile(r"(\d(\.\d+)?)?")
_WITH_URL = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)", re.IGNORECASE)


def model_from(spec: str | Model, *, api_key: str = "") -> Model:
    """Builds the model that a specification names; a model is returned as it is.

    Args:
        spec: `offline`, `scripted:FILE`, or `openai:MODEL@BASE_URL`. `offline:0.3` takes its time, that many seconds an
            answer. Without `@BASE_URL` it is OpenAI's own service. A model's name may hold colons, slashes and at
            signs: `openai:llama3:8b@http://127.0.0.1:11434/v1`.
        api_key: The key of an `openai` model; a server of one's own may need none.

    Raises:
        SetupError: The specification has no known form, or what it names is missing.
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
    if kind == "openai" and rest:
        return _openai(rest, api_key)
    raise SetupError(f"there is no model {spec!r}: use one of {FORMS}")


def _openai(rest: str, api_key: str) -> Model:
    from meshwright.agents.models.openai import OpenAIModel

    match = _WITH_URL.fullmatch(rest)
    if match:
        return OpenAIModel(match["model"], match["url"], api_key)
    if "@" in rest[1:]:
        raise SetupError(f"the base URL in openai:{rest} begins with neither http:// nor https://")
    if not api_key:
        raise SetupError(f"openai:{rest} needs a key: set OPENAI_API_KEY, or name a server with openai:{rest}@BASE_URL")
    return OpenAIModel(rest, OPENAI_URL, api_key)
