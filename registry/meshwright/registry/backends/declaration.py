"""What every declared tool has, whatever is behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from meshwright.core.channel import time_left
from meshwright.core.errors import InvalidRequestError, MeshError, SetupError
from meshwright.core.ids import digest
from meshwright.core.settings import Settings
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Tool
from meshwright.registry import current_invocation
from meshwright.registry.backends.secret import Redaction, Secret, SecretReference
from meshwright.registry.catalog import MAX_COST_MICROS, MAX_DESCRIPTION, MAX_TIMEOUT_S, UNPLACED, declared_contract
from meshwright.registry.tool import ApprovalName, EffectName

T = TypeVar("T")
JsonSchema = dict[str, Any]


class Options(BaseModel):
    """A part of the declarations: every field is known and of its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ToolOptions(Options):
    """What a declaration says of a tool, its backend aside."""

    name: str = Field(description="Dotted name")
    version: str = Field(description="Semantic version of the contract")
    description: str = Field(min_length=1, max_length=MAX_DESCRIPTION, description="What models choose it by")
    effect: EffectName | None = Field(default=None, description="What a retry may do")
    timeout_s: float = Field(default=30.0, gt=0, le=MAX_TIMEOUT_S, description="Seconds for one call")
    approval: ApprovalName = Field(default="never", description="When a person is asked before a call")
    required_scopes: list[str] = Field(default_factory=list, description="Scopes that a caller must hold")
    redact: list[str] = Field(default_factory=list, description="JSON Pointers of what is taken out of results")
    cost_micros: int = Field(default=0, ge=0, le=MAX_COST_MICROS, description="What a call costs, in US$ / 1000000")
    input_schema: dict[str, JsonValue] | None = Field(default=None, description="JSON Schema of the arguments")
    output_schema: dict[str, JsonValue] | None = Field(default=None, description="JSON Schema of the result")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host has for its backends.

    Attributes:
        folder: Where the declarations are: relative paths begin there.
        secrets: By name.
        settings: The host's own.
    """

    folder: Path
    secrets: dict[str, Secret] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def secret(self, name: str) -> Secret:
        """Returns a secret.

        Raises:
            SetupError: There is none of that name.
        """
        if name not in self.secrets:
            raise SetupError(f"there is no secret {name}: the secrets are {', '.join(self.secrets) or 'none'}")
        return self.secrets[name]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers of a tool for the one place that it calls.

    Attributes:
        plain: By name.
        secret: By name; never shown.
        redaction: Keeps them out of what comes back.
    """

    plain: dict[str, str]
    secret: dict[str, str] = field(repr=False)
    redaction: Redaction


def credentials(
    headers: Mapping[str, str | SecretReference], surroundings: Surroundings, host: str, port: int
) -> Credentials:
    """Reads what a declaration says of headers or metadata.

    Raises:
        SetupError: A secret is unknown, or may not go to the place.
    """
    references = {name: one for name, one in headers.items() if isinstance(one, SecretReference)}
    secrets = {name: surroundings.secret(one.secret) for name, one in references.items()}
    return Credentials(
        {name: one for name, one in headers.items() if isinstance(one, str)},
        {name: one.for_place(host, port, references[name].prefix) for name, one in secrets.items()},
        Redaction(secrets.values()),
    )


@dataclass(frozen=True, kw_only=True)
class DeclaredTool:
    """The contract of a declared tool; each backend adds how it runs.

    Attributes:
        name: Dotted name.
        version: Semantic version of the contract.
        description: What models choose it by.
        effect: What a retry may do.
        timeout_s: Seconds for one call.
        approval: When a person is asked before a call.
        cost_micros: What a call costs, in millionths of a US dollar.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result; empty: any result fits.
        required_scopes: Scopes that a caller must hold.
        redact: JSON Pointers of what is taken out of results.
        agent_id: Agent that does the work; empty: none.
    """

    name: str
    version: str
    description: str
    effect: EffectName
    timeout_s: float
    approval: ApprovalName
    cost_micros: int
    input_schema: JsonSchema = field(repr=False)
    output_schema: JsonSchema = field(repr=False)
    required_scopes: Sequence[str] = ()
    redact: Sequence[str] = ()
    agent_id: str = ""

    @property
    def is_threaded(self) -> bool:
        """Whether it runs in a thread of its host; most wait in the loop."""
        return False

    def contract(self, endpoint: str = UNPLACED) -> Tool:
        """Builds the contract from the declaration.

        Raises:
            SetupError: The registry would not take it; names the field.
        """
        try:
            return declared_contract(
                self,
                description=self.description,
                input_schema=self.input_schema,
                output_schema=self.output_schema,
                endpoint=endpoint,
                agent_id=self.agent_id,
            )
        except InvalidRequestError as error:
            problems = "; ".join(f"{name.removeprefix('tool.')}: {problem}" for name, problem in error.fields.items())
            raise SetupError(problems) from None

    def time_for_call_s(self) -> float:
        """Returns how long a call may take: a pure one ends with its caller, one with effects has its own time.

        Raises:
            DeadlineExceededError: No time is left.
        """
        return time_left(self.timeout_s) if self.effect == "pure" else self.timeout_s


def idempotency_key() -> str:
    """Names the current call for a service that can deduplicate: its key, told apart by tenant and principal."""
    call = current_invocation()
    return f"{call.key}-{digest(call.tenant, call.principal)[:16]}"


def check_no_schemas(tool: ToolOptions, source: str) -> None:
    """Refuses schemas where the backend itself knows them.

    Raises:
        SetupError: Names the field.
    """
    for name in ("input_schema", "output_schema"):
        if getattr(tool, name) is not None:
            raise SetupError(f"{name}: leave it out: it comes from {source}")


def located(field_name: str, make: Callable[..., T], *arguments: Any) -> T:
    """Makes something of a declaration's field; errors name the field.

    Raises:
        SetupError: It cannot be made; says where and why.
    """
    try:
        return make(*arguments)
    except MeshError as error:
        raise SetupError(f"{field_name}: {error.message}") from None


def contract_parts(
    tool: ToolOptions, effect: EffectName, input_schema: JsonSchema, output_schema: JsonSchema
) -> dict[str, Any]:
    """Returns the fields of a `DeclaredTool`: as declared, with what its backend knows.

    Args:
        tool: The declaration.
        effect: Counts where the declaration says nothing.
        input_schema: Of the arguments.
        output_schema: Counts where the declaration says nothing.
    """
    declared = tool.output_schema if tool.output_schema is not None else output_schema
    return {
        "name": tool.name,
        "version": tool.version,
        "description": tool.description.strip(),
        "effect": tool.effect or effect,
        "timeout_s": tool.timeout_s,
        "approval": tool.approval,
        "cost_micros": tool.cost_micros,
        "input_schema": input_schema,
        "output_schema": declared,
        "required_scopes": tool.required_scopes,
        "redact": tool.redact,
    }
