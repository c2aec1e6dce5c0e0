"""Which models a process has: one, a chain, or a file of named models and rules. Mistakes are told in one line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from meshwright.agents.models.candidate import TIMEOUT_S, Candidate, Limits, ModelClass, candidate, title
from meshwright.agents.models.model import Model
from meshwright.agents.models.router import Router
from meshwright.agents.models.routing import CLASSES, Rule
from meshwright.core.errors import SetupError
from meshwright.core.ids import AGENT_ID
from meshwright.registry.toolfile import Options, content, options_of

MAX_MODELS, MAX_RULES = 32, 64
MAX_TOKENS = 10_000_000
Build = Callable[[str], Model]
"""Makes the model that a spec names."""
TaskClassName = Literal["simple", "medium", "complex"]


class ModelOptions(Options):
    """One entry under `models`."""

    spec: str = Field(min_length=1, description="As MESHWRIGHT_MODEL takes it")
    kind: Literal["fast", "best"] | None = Field(default=None, alias="class", description="What requests ask for")
    context_window: int = Field(default=0, ge=0, le=MAX_TOKENS, description="Tokens of prompt and answer; 0: not told")
    max_output: int = Field(default=0, ge=0, le=MAX_TOKENS, description="Tokens of an answer; 0: as asked")
    timeout_s: float | None = Field(default=None, gt=0, le=3_600, description="Seconds for one call, retries included")

    def limits(self, timeout_s: float) -> Limits:
        """Returns what the model can take."""
        return Limits(self.context_window, self.max_output, self.timeout_s or timeout_s)


class CaseOptions(Options):
    """When a rule matches; what is left out matches everything."""

    classes: list[TaskClassName] = Field(default_factory=list, alias="class", max_length=3)
    max_prompt_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: bool | None = None
    tenants: list[str] = Field(default_factory=list, max_length=1_000)
    budget_left_below: float | None = Field(default=None, gt=0, le=1)


class RuleOptions(Options):
    """One entry under `rules`."""

    when: CaseOptions = CaseOptions()
    use: list[str] = Field(min_length=1, max_length=MAX_MODELS)

    def rule(self) -> Rule:
        """Returns the rule that is written here."""
        when = self.when
        return Rule(
            tuple(self.use),
            frozenset(when.classes),
            when.max_prompt_tokens,
            when.tools,
            frozenset(when.tenants),
            when.budget_left_below,
        )


class FileOptions(Options):
    """The whole file."""

    models: dict[str, ModelOptions] = Field(min_length=1, max_length=MAX_MODELS)
    rules: list[RuleOptions] = Field(default_factory=list, max_length=MAX_RULES)
