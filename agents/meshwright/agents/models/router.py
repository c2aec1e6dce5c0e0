"""The router: the one thing that an agent asks for an answer, whatever models are behind it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshwright.agents.models.candidate import Build, Candidate, Limits, candidate
from meshwright.agents.models.chain import Chain, OnNotice
from meshwright.agents.models.model import Answer, Model, OnText, Prompt
from meshwright.agents.models.routing import Rule, Wish, choose
from meshwright.core.errors import SetupError

if TYPE_CHECKING:
    from meshwright.agents.models.routes import Routes

OFFLINE = "offline"
MOST_MODELS = 8
"""Models of one chain that is written out."""


class Router:
    """Chooses models by rule and asks them until one answers; a single model is a chain of one.

    Args:
        candidates: All that may be asked, each with a name of its own.
        rules: Which of them for what, the first that matches; none: all in their order.
        chain: Asks them.
    """

    def __init__(self, candidates: Sequence[Candidate], rules: Sequence[Rule] = (), chain: Chain | None = None) -> None:
        self.candidates = tuple(candidates)
        self._rules = tuple(rules)
        self._chain = chain or Chain()
        self.limit_s = sum(one.limits.timeout_s for one in self.candidates)
        """Seconds after which a call has ended whatever happens, writing notices aside."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may ask for beside the classes."""
        return tuple(one.name for one in self.candidates)

    async def answer(self, prompt: Prompt, on_text: OnText, *, wish: Wish, on_notice: OnNotice) -> Answer:
        """Asks the models that fit until one answers.

        Args:
            prompt: What is asked.
            on_text: Takes each piece of text; after a notice FELL_BACK the text begins anew.
            wish: What is known beside the prompt.
            on_notice: Takes what was done about failures, at once.

        Raises:
            InvalidRequestError: The wish is a model that is not there.
            ModelUnavailableError: No model answers.
            RateLimitedError: The provider asks to slow down.
            ModelRejectedError: Every model refuses the request for good.
        """
        choice = choose(self.candidates, self._rules, prompt, wish)
        answer = await self._chain.answer(choice.candidates, prompt, on_text, on_notice)
        return replace(answer, routed_because=choice.because)

    async def close(self) -> None:
        """Releases the connections of all models."""
        for one in self.candidates:
            await one.model.close()


def router_from(model: str | Model, build: Build, *, file: str = "", timeout_s: float) -> Router:
    """Builds the router of an agent's process.

    Args:
        model: A model; or specs and names of the file, separated by commas, asked in this order; empty: all models of
            the file by its rules, or the offline model where there is no file.
        build: Makes the model of a spec.
        file: Of named models and rules, see `routes.load`; empty: there is none.
        timeout_s: Seconds for one call to a model, retries included, where the file says nothing.

    Raises:
        SetupError: One line that says what is wrong.
    """
    limits = Limits(timeout_s=timeout_s)
    if not isinstance(model, str):
        return Router([candidate(model, limits=limits)])
    routes = routes_of(file) if file else None
    if routes and not model.strip():
        return Router([routes.candidate(name, build, timeout_s) for name in routes.models], routes.rules)
    parts = [part.strip() for part in (model.strip() or OFFLINE).split(",")]
    if len(parts) > MOST_MODELS:
        raise SetupError(f"{len(parts)} models in a chain: at most {MOST_MODELS} are asked one after the other")
    found: list[Candidate] = []
    for part in parts:
        if routes and part in routes.models:
            found.append(routes.candidate(part, build, timeout_s))
        else:
            found.append(candidate(build(part, timeout_s=timeout_s), limits=limits))
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise SetupError(f"{twice} stands twice in the chain: name the models in a file (MESHWRIGHT_MODELS)")
    return Router(found)


def routes_of(file: str) -> "Routes":
    """Reads a file of models and rules; what that takes is imported only then.

    Raises:
        SetupError: One line with file and field.
    """
    from meshwright.agents.models.routes import load

    return load(Path(file))
