"""The router: the one thing that an agent asks for an answer, whatever models are behind it."""

from collections.abc import Sequence
from dataclasses import replace

from meshwright.agents.models.candidate import Candidate
from meshwright.agents.models.chain import Chain, OnNotice
from meshwright.agents.models.model import Answer, OnText, Prompt
from meshwright.agents.models.routing import Rule, Wish, choose


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

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may ask for beside the classes."""
        return tuple(one.name for one in self.candidates)

    @property
    def limit_s(self) -> float:
        """Seconds after which a call has ended whatever happens, writing notices aside."""
        return sum(one.limits.timeout_s for one in self.candidates)

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
