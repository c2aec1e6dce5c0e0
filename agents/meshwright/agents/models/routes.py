"""A file of named models, and of rules which of them for what. Mistakes are told in one line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from meshwright.agents.models.candidate import Build, Candidate, Limits, candidate
from meshwright.agents.models.routing import CLASSES, Rule
from meshwright.core.errors import SetupError
from meshwright.registry.backends.declaration import Options
from meshwright.registry.file import content
from meshwright.registry.toolfile import MAX_BYTES, options_of, parsed

MAX_MODELS, MAX_RULES, MAX_TENANTS = 32, 64, 1_000
MAX_TOKENS = 10_000_000
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
TaskClassName = Literal["simple", "medium", "complex"]


def one_or_more(value: Any) -> Any:
    """Takes a single word for a list of one."""
    return [value] if isinstance(value, str) else value


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

    classes: Annotated[list[TaskClassName], BeforeValidator(one_or_more)] = Field(
        default_factory=list, alias="class", max_length=3
    )
    max_prompt_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    tools: bool | None = None
    tenants: Annotated[list[str], BeforeValidator(one_or_more)] = Field(default_factory=list, max_length=MAX_TENANTS)
    budget_left_below: float | None = Field(default=None, gt=0, le=1)


class RuleOptions(Options):
    """One entry under `rules`."""

    when: CaseOptions = CaseOptions()
    use: Annotated[list[str], BeforeValidator(one_or_more)] = Field(min_length=1, max_length=MAX_MODELS)

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

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for name in self.models:
            if not NAME.fullmatch(name) or name in CLASSES:
                raise ValueError(f"models.{name}: a name matches {NAME.pattern} and is none of {', '.join(CLASSES)}")
        for number, rule in enumerate(self.rules):
            for name in rule.use:
                if name not in self.models:
                    raise ValueError(
                        f"rules.{number}.use: there is no model {name}: there are {', '.join(self.models)}"
                    )
                if rule.use.count(name) > 1:
                    raise ValueError(f"rules.{number}.use: {name} stands twice")
        return self


@dataclass(frozen=True, slots=True)
class Routes:
    """A file that was read: nothing in it is built yet.

    Attributes:
        path: Where it is.
        models: By name.
        rules: In their order.
    """

    path: Path
    models: dict[str, ModelOptions]
    rules: tuple[Rule, ...]

    def candidate(self, name: str, build: Build, timeout_s: float) -> Candidate:
        """Builds one of its models.

        Args:
            name: Which.
            build: Makes the model of a spec.
            timeout_s: Seconds for one call where the file says nothing.

        Raises:
            SetupError: It cannot be built; says which.
        """
        options = self.models[name]
        limits = options.limits(timeout_s)
        try:
            model = build(options.spec, timeout_s=limits.timeout_s)
        except SetupError as error:
            raise SetupError(f"{self.path}: models.{name}.spec: {error.message}") from None
        return candidate(model, name, kind=options.kind or "", limits=limits)


def load(path: Path) -> Routes:
    """Reads a file of models and rules.

    Args:
        path: YAML of at most 1 MiB, `models: {NAME: {spec, class, context_window, max_output, timeout_s}}` and
            `rules: [{when: {class, max_prompt_tokens, tools, tenants, budget_left_below}, use: [NAME, ...]}]`.

    Raises:
        SetupError: One line with file and field.
    """
    text = content(path, MAX_BYTES)
    try:
        read = options_of(FileOptions, parsed(text))
    except SetupError as error:
        raise SetupError(f"{path}: {error.message}") from None
    return Routes(path, read.models, tuple(rule.rule() for rule in read.rules))
