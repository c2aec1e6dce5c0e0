"""Routing: which models are asked for a prompt, in which order, and why. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

from meshwright.agents.models.candidate import Candidate, ModelClass, listed
from meshwright.agents.models.estimate import input_tokens
from meshwright.agents.models.model import Prompt, estimated_tokens
from meshwright.core.errors import InvalidRequestError

CLASSES: tuple[ModelClass, ...] = tuple(one for one in get_args(ModelClass) if one)
"""What a request may ask for beside a model's name."""
LONG_TASK, VERY_LONG_TASK = 200, 1_500
"""Tokens of a task that count as one sign of work, and as two."""
MANY_TOOLS = 6
HARD_WORDS = re.compile(
    r"\b(analy[sz]\w*|architect\w*|code|coding|compar\w+|debug\w*|design\w*|evaluat\w*|explain\w*|implement\w*|"
    r"plan|planning|prove|proof|refactor\w*|step by step|strategy|trade-?offs?|why)\b",
    re.IGNORECASE,
)
READ_CHARACTERS = 4_000
"""So much of a task is searched for words: its beginning says what is wanted."""
COMPLEX_FROM = 3


class TaskClass(StrEnum):
    """How much a task asks of a model."""

    SIMPLE = "simple"
    MEDIUM = "medium"
    COMPLEX = "complex"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is known of a task beside its prompt.

    Attributes:
        model: A class (`fast`, `best`) or a model's name that the request asks for; empty: the agent's choice.
        tenant: Whose task it is.
        budget_left: Share of its budget that is left, 0..1.
        unpriced: Names of models that are not asked, since a budget counts money and nobody knows their prices.
    """

    model: str = ""
    tenant: str = ""
    budget_left: float = 1.0
    unpriced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """What rules look at.

    Attributes:
        task_class: How much is asked of the model.
        prompt_tokens: Estimated tokens of the whole prompt.
        has_tools: Whether tools may be called.
        tenant: Whose task it is.
        budget_left: Share of its budget that is left, 0..1.
    """

    task_class: TaskClass
    prompt_tokens: int
    has_tools: bool
    tenant: str
    budget_left: float

    @classmethod
    def of(cls, prompt: Prompt, wish: Wish) -> "Case":
        """Reads a case off a prompt and what is known beside it."""
        tools = bool(prompt.tools)
        return cls(class_of(prompt), input_tokens(prompt), tools, wish.tenant, wish.budget_left)


@dataclass(frozen=True, slots=True)
class Rule:
    """Models for the cases that it matches; what is left open matches everything.

    Attributes:
        use: Names, in the order in which they are asked.
        classes: Task classes.
        max_prompt_tokens: Longest prompt.
        tools: Whether tools may be called.
        tenants: Whose tasks.
        budget_left_below: Upper bound of the share of the budget that is left.
    """

    use: tuple[str, ...]
    classes: frozenset[str] = frozenset()
    max_prompt_tokens: int | None = None
    tools: bool | None = None
    tenants: frozenset[str] = frozenset()
    budget_left_below: float | None = None

    def matches(self, case: Case) -> bool:
        """Whether it is meant for a case."""
        return (
            (not self.classes or case.task_class in self.classes)
            and (self.max_prompt_tokens is None or case.prompt_tokens <= self.max_prompt_tokens)
            and (self.tools is None or case.has_tools == self.tools)
            and (not self.tenants or case.tenant in self.tenants)
            and (self.budget_left_below is None or case.budget_left < self.budget_left_below)
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is asked, in this order, and why, in words for people."""

    candidates: tuple[Candidate, ...]
    because: str


def class_of(prompt: Prompt) -> TaskClass:
    """Guesses how much a task asks of a model; the same at every step of the task.

    Signs are a long task (two where it is very long), tools (two where there are many), a word that announces work,
    and earlier turns of a conversation. None: simple; one or two: medium; more: complex.
    """
    place = max((index for index, message in enumerate(prompt.messages) if message.role == "user"), default=0)
    task = prompt.messages[place].text if prompt.messages else ""
    tokens = estimated_tokens(task)
    signs = (
        tokens > LONG_TASK,
        tokens > VERY_LONG_TASK,
        bool(prompt.tools),
        len(prompt.tools) >= MANY_TOOLS,
        bool(HARD_WORDS.search(task[:READ_CHARACTERS])),
        place > 0,
    )
    if sum(signs) >= COMPLEX_FROM:
        return TaskClass.COMPLEX
    return TaskClass.MEDIUM if any(signs) else TaskClass.SIMPLE


def check_wish(model: str, names: Sequence[str]) -> None:
    """Lets a request pass that asks for a model which is there, or for a class.

    Raises:
        InvalidRequestError: It asks for another one; says which there are.
    """
    if model and model not in CLASSES and model not in names:
        known = ", ".join((*CLASSES, *names))
        raise InvalidRequestError(f"there is no model {model!r}: ask for one of {known}", fields={"model": "unknown"})


def choose(candidates: Sequence[Candidate], rules: Sequence[Rule], prompt: Prompt, wish: Wish) -> Choice:
    """Chooses the chain for a prompt: by the first rule that matches, then by the request's wish, then by size.

    Args:
        candidates: All that may be asked; in this order where no rule matches.
        rules: In this order; their names are among the candidates'.
        prompt: What is asked.
        wish: What is known beside it; at least one of the candidates has a price.

    Raises:
        InvalidRequestError: The wish is a model that is not there.
    """
    if wish.model:
        check_wish(wish.model, [one.name for one in candidates])
    if len(candidates) == 1:
        return Choice(tuple(candidates), "the only model")
    case = Case.of(prompt, wish)
    chain, because = _by_rule(candidates, rules, case)
    if wish.model:
        chain, because = _by_wish(candidates, chain, wish.model)
    if wish.unpriced:
        chain, because = _by_price(candidates, chain, because, wish.unpriced)
    return _by_size(chain, because, case)


def _by_rule(candidates: Sequence[Candidate], rules: Sequence[Rule], case: Case) -> tuple[tuple[Candidate, ...], str]:
    by_name = {one.name: one for one in candidates}
    tools = "tools" if case.has_tools else "no tools"
    facts = f"{case.task_class} task, {case.prompt_tokens} tokens, {tools}, {case.budget_left:.0%} of the budget left"
    for number, rule in enumerate(rules, 1):
        if rule.matches(case):
            return tuple(by_name[name] for name in rule.use), f"rule {number}: {facts}"
    return tuple(candidates), f"no rule for it: {facts}" if rules else "first of the chain"


def _by_wish(
    candidates: Sequence[Candidate], chain: tuple[Candidate, ...], wished: str
) -> tuple[tuple[Candidate, ...], str]:
    """Puts what is asked for first; the others still answer where it cannot."""
    first = tuple(one for one in candidates if wished in (one.name, one.kind))
    if not first:
        return chain, f"{wished} was asked for, and no model is called so: as without it"
    return (*first, *(one for one in chain if one not in first)), f"{wished} was asked for"


def _by_price(
    candidates: Sequence[Candidate], chain: tuple[Candidate, ...], because: str, unpriced: frozenset[str]
) -> tuple[tuple[Candidate, ...], str]:
    """Leaves out models whose price nobody knows; where that leaves none of a chain, all others are asked."""
    left_out = [one for one in chain if one.name in unpriced]
    if not left_out:
        return chain, because
    priced = [tuple(one for one in models if one.name not in unpriced) for models in (chain, candidates)]
    return priced[0] or priced[1], f"{because}; nobody knows what {listed(left_out)} costs"


def _by_size(chain: tuple[Candidate, ...], because: str, case: Case) -> Choice:
    """Leaves out models whose window is too small, unless all are."""
    fitting = tuple(one for one in chain if one.holds(case.prompt_tokens))
    if fitting in ((), chain):
        return Choice(chain, because)
    small = [one for one in chain if one not in fitting]
    return Choice(fitting, f"{because}; too long for {listed(small)}")
