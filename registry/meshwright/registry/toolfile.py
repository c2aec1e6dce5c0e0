"""A host's declarations: one YAML file of tools that are not Python functions. Mistakes are told in one line."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from meshwright.core.errors import SetupError
from meshwright.core.mistake import mistakes
from meshwright.core.settings import Settings
from meshwright.registry.backends.agent import AgentOptions, agent_tool
from meshwright.registry.backends.declaration import Options, Surroundings, ToolOptions
from meshwright.registry.backends.grpc import GrpcOptions, grpc_tools
from meshwright.registry.backends.http import HttpOptions, http_tool
from meshwright.registry.backends.secret import PLAIN, REFERENCE, Secret, SecretOptions
from meshwright.registry.backends.sql import SqlOptions, sql_tool
from meshwright.registry.file import content
from meshwright.registry.tool.hosted import HostedTool

MAX_BYTES = 1 * 2**20
MAX_TOOLS = 256
MAX_DEPTH = 40
Part = TypeVar("Part", bound=Options)


class BackendOptions(Options):
    """What is behind a tool: exactly one."""

    http: HttpOptions | None = None
    grpc: GrpcOptions | None = None
    sql: SqlOptions | None = None
    agent: AgentOptions | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len([one for _, one in self if one is not None]) != 1:
            raise ValueError("exactly one of http, grpc, sql and agent")
        return self


class DeclarationOptions(ToolOptions):
    """One entry under `tools`."""

    backend: BackendOptions


class FileOptions(Options):
    """The file but for its tools, which are read one by one so that errors can name them."""

    secrets: dict[str, SecretOptions] = Field(default_factory=dict, max_length=64)
    tools: list[Any] = Field(min_length=1, max_length=MAX_TOOLS)


class PlainLoader(yaml.SafeLoader):
    """YAML as far as declarations need it: no name twice, no anchors that grow, no endless depth."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node.

        Raises:
            SetupError: It is an alias, or too deep.
        """
        line: int = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise SetupError(f"line {line}: write it out: references (*name) are not read")
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > MAX_DEPTH:
            raise SetupError(f"line {line}: goes deeper than {MAX_DEPTH} levels")
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - as YAML's own
        """Makes a mapping.

        Raises:
            SetupError: A name stands in it twice.
        """
        names = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise SetupError(f"line {key.start_mark.line + 1}: {key.value} stands twice")
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


def load(path: Path, settings: Settings | None = None) -> list[HostedTool]:
    """Reads a file of declarations and makes its tools; nothing is called for that.

    Args:
        path: Ends in .yaml or .yml; what it names by relative paths is beside it.
        settings: The host's own; by default from the environment.

    Raises:
        SetupError: One line with file, tool and field.
    """
    text = content(path, MAX_BYTES)
    try:
        declared = options_of(FileOptions, parsed(text))
        surroundings = Surroundings(path.parent, secrets(declared, path.parent), settings or Settings.load())
    except SetupError as error:
        raise SetupError(f"{path}: {error.message}") from None
    tools: list[HostedTool] = []
    for index, entry in enumerate(declared.tools):
        try:
            tools.extend(checked_tools(entry, surroundings))
        except SetupError as error:
            raise SetupError(f"{path}: tool {title(entry, index)}: {error.message}") from None
    pins = [f"{tool.name}@{tool.version}" for tool in tools]
    if twice := [pin for pin in pins if pins.count(pin) > 1]:
        raise SetupError(f"{path}: tool {twice[0]}: stands twice: rename one of them")
    return tools


def parsed(text: bytes) -> Any:
    """Reads YAML.

    Raises:
        SetupError: It is none.
    """
    try:
        return yaml.load(text, PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SetupError(f"line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SetupError(f"is no YAML: {' '.join(str(error).split())[:200]}") from None


def secrets(declared: FileOptions, folder: Path) -> dict[str, Secret]:
    """Reads the secrets from where they are.

    Raises:
        SetupError: One is not there; names it.
    """
    found = {}
    for name, options in declared.secrets.items():
        try:
            found[name] = Secret.read(name, options, folder)
        except SetupError as error:
            raise SetupError(f"secrets.{name}.{error.message}") from None
    return found


def checked_tools(entry: Any, surroundings: Surroundings) -> Sequence[HostedTool]:
    """Makes the tools of one entry and holds each against the rules of the catalog."""
    declaration = options_of(DeclarationOptions, entry)
    tools = made(declaration, surroundings)
    for tool in tools:
        tool.contract()
    return tools


def made(declaration: DeclarationOptions, surroundings: Surroundings) -> Sequence[HostedTool]:
    """Makes the tools of one declaration: the one place that knows the backends."""
    backend = declaration.backend
    if backend.http:
        return [http_tool(declaration, backend.http, surroundings)]
    if backend.grpc:
        return grpc_tools(declaration, backend.grpc, surroundings)
    if backend.sql:
        return [sql_tool(declaration, backend.sql, surroundings)]
    assert backend.agent, "exactly one backend is declared"
    return [agent_tool(declaration, backend.agent, surroundings)]


def title(entry: Any, index: int) -> str:
    """Names an entry, by its place where it has no name."""
    name = entry.get("name") if isinstance(entry, dict) else None
    return name[:64] if isinstance(name, str) and name else f"number {index + 1}"


def options_of(kind: type[Part], value: Any) -> Part:
    """Reads a part of the file.

    Raises:
        SetupError: The first mistake in it, with its field.
    """
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise SetupError("must be a mapping of names")
    try:
        return kind(**value)
    except ValidationError as error:
        first = mistakes(error, kind)[0]
        field = ".".join(str(part) for part in first.location if str(part) not in (PLAIN, REFERENCE))
        raise SetupError(f"{field}: {first.words}" if field else first.words) from None
