"""`meshwright tool diff` and `meshwright tool check`: whether callers of a contract keep working with another one."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format

from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, show, show_messages, show_table
from meshwright.core.canonical import from_struct
from meshwright.core.errors import InvalidRequestError, MeshError, SetupError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import GetToolRequest, SchemaChange, Tool
from meshwright.registry.catalog import UNPLACED, checked_contract
from meshwright.registry.compat import contract_changes, is_compatible
from meshwright.registry.file import content
from meshwright.registry.module import DECLARATIONS, members
from meshwright.registry.module import tools as tools_at
from meshwright.registry.tool import LocalTool
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.version import is_release, neighbours, order

BREAKING, UNREADABLE = 1, 2
"""Exit codes beside 0."""
SUFFIXES = (".json", ".yaml", ".yml")
MAX_FILE = 2**20
MAX_NODES = 20_000
MAX_DEPTH = 64
PLACED = ("endpoint", "digest", "create_time", "aliases", "sunset_time", "replaced_by")
"""Fields of a registered tool that are no part of its contract."""
T = TypeVar("T")


def diff(
    old: Annotated[
        str,
        typer.Argument(
            help="FILE.json, FILE.yaml, MODULE:TOOL, FILE.py:TOOL, FILE.yaml:TOOL, or NAME@VERSION of a mesh"
        ),
    ],
    new: Annotated[str, typer.Argument(help="The contract in its place, named alike")],
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Compares two contracts: 0, callers of the old one keep working; 1, some may not; 2, one cannot be read."""
    changes = readable(lambda: contract_changes(contract_at(old, edge), contract_at(new, edge)))
    if output is Format.TABLE:
        show_table(
            ("RULE", "POINTER", "BREAKING", "WHAT"),
            ((one.rule, one.pointer, "yes" if one.breaking else "no", one.message) for one in changes),
        )
    else:
        show_messages(changes, output)
    if not is_compatible(changes):
        raise typer.Exit(BREAKING)


def check(
    folder: Annotated[Path, typer.Argument(help="Committed contracts: NAME/VERSION.json")],
    modules: Annotated[
        list[str],
        typer.Argument(help="Modules, FILE.py, or FILE.yaml of declarations, whose tools are held against them"),
    ],
    write: Annotated[bool, typer.Option("--write", help="Add the contracts of new versions to the folder")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Holds tools against their committed contracts: 0, all as it should be; 1, not; 2, something cannot be read."""
    findings = readable(lambda: findings_of(committed(folder), defined(modules)))
    if write:
        findings = readable(lambda: [written(folder, finding) for finding in findings])
    show_findings(findings, output)
    if any(finding.is_wrong for finding in findings):
        raise typer.Exit(BREAKING)


def readable(work: Callable[[], T]) -> T:
    """Does what reads contracts; what cannot be read is told in one line and ends the command."""
    try:
        return work()
    except MeshError as error:
        said = "; ".join(f"{place}: {what}" for place, what in error.fields.items())
        sys.stderr.write(f"error: {error.message}{f' ({said})' if said else ''}\n")
        raise typer.Exit(UNREADABLE) from None


def contract_at(place: str, edge: str | None) -> Tool:
    """Reads a contract from where a command's argument says.

    Raises:
        MeshError: There is none, or it is none.
    """
    if place.endswith(SUFFIXES):
        return contract_in(Path(place))
    module, colon, name = place.rpartition(":")
    if colon:
        is_declared = module.endswith(DECLARATIONS)
        found: Mapping[str, HostedTool] = declared(module) if is_declared else members(module, LocalTool)
        if name not in found:
            raise SetupError(f"{module} has no tool {name}: it has {', '.join(sorted(found)) or 'none'}")
        return found[name].contract()
    name, _, version = place.partition("@")
    request = GetToolRequest(name=name, version=version)
    tool: Tool = with_edge(edge, lambda mesh: mesh.call(mesh.tools.GetTool, request))
    return tool


def declared(file: str) -> dict[str, HostedTool]:
    """Returns the tools that a file of declarations holds, by name and by name@version; a name is its last version.

    Raises:
        SetupError: It holds none, or something is wrong with them.
    """
    tools = tools_at(file)
    return {tool.name: tool for tool in tools} | {f"{tool.name}@{tool.version}": tool for tool in tools}


def contract_in(path: Path) -> Tool:
    """Reads a contract from a file.

    Raises:
        SetupError: There is no such file, or it is too large.
        InvalidRequestError: It holds no contract.
    """
    text = content(path, MAX_FILE)
    try:
        tool = json_format.ParseDict(plain_object(path, parsed(path, text)), Tool())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise InvalidRequestError(f"{path} holds no contract: {str(error).partition(chr(10))[0][:300]}") from None
    tool.endpoint = tool.endpoint or UNPLACED
    try:
        return checked_contract(tool)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error.message}", fields=error.fields) from None


def parsed(path: Path, text: bytes) -> Any:
    """Parses JSON or YAML, by the file's name.

    Raises:
        ValueError: It is neither.
    """
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def plain_object(path: Path, value: Any) -> dict[str, Any]:
    """Returns a value that is a JSON object of sensible size, aliases of YAML written out.

    Raises:
        InvalidRequestError: It is not.
    """
    pending, nodes = [(value, 0)], 0
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            limits = f"at most {MAX_NODES} values, {MAX_DEPTH} deep"
            raise InvalidRequestError(f"{path} goes too far for a contract: {limits}")
        if isinstance(node, dict) and all(isinstance(name, str) for name in node):
            pending.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, list):
            pending.extend((child, depth + 1) for child in node)
        elif not (isinstance(node, str | int | float) or node is None):
            raise InvalidRequestError(f"{path} holds {type(node).__name__}, which JSON has not: write it in quotes")
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{path} holds no contract: it is no object")
    return value


def as_committed(tool: Tool) -> str:
    """Writes a contract as it is committed: JSON, sorted, without what the registry adds."""
    told = json_format.MessageToDict(tool, preserving_proto_field_name=True)
    said = {name: value for name, value in told.items() if name not in PLACED}
    for name in ("input_schema", "output_schema"):
        said[name] = from_struct(getattr(tool, name), name)  # integers without a point
    return json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


Contracts = dict[str, dict[str, Tool]]
"""By name and version."""


def committed(folder: Path) -> Contracts:
    """Reads a folder of contracts; one that is not there yet is empty.

    Raises:
        MeshError: A file holds no contract, or another one than its name says.
    """
    found: Contracts = {}
    for path in sorted(folder.glob("*/*.json")):
        tool = contract_in(path)
        if (tool.name, tool.version) != (path.parent.name, path.stem):
            raise InvalidRequestError(
                f"{path} holds {tool.name}@{tool.version}: name it {tool.name}/{tool.version}.json"
            )
        found.setdefault(tool.name, {})[tool.version] = tool
    return found


def defined(modules: Iterable[str]) -> list[Tool]:
    """Returns the contracts of the tools that modules and files of declarations define, by name and version.

    Raises:
        SetupError: A module cannot be imported, has no tools, or two tools claim the same version.
    """
    found: dict[tuple[str, str], Tool] = {}
    for module in modules:
        for hosted in tools_at(module):
            tool = hosted.contract()
            if found.setdefault((tool.name, tool.version), tool).digest != tool.digest:
                raise SetupError(f"{module}: {tool.name}@{tool.version} is defined twice, by different contracts")
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True, slots=True)
class Finding:
    """How a tool stands to its committed contracts.

    Attributes:
        tool: As it is defined now; where it is not any more, as it was committed.
        state: `same`, `new`, `written`, `gone`, `changed` (at the same version) or `breaking` (within a major version,
            before 1.0.0 within a minor).
        against: Version that it was compared with; empty: none.
        changes: How the two differ.
    """

    tool: Tool
    state: str
    against: str = ""
    changes: Sequence[SchemaChange] = ()

    @property
    def is_wrong(self) -> bool:
        """Whether something must be done before the tool is published."""
        return self.state in NEXT_STEPS


NEXT_STEPS = {
    "new": "commit it: check --write",
    "changed": "a version never changes: raise it",
    "breaking": "raise the major version",
}


def findings_of(known: Contracts, tools: list[Tool]) -> list[Finding]:
    """Says how each tool stands to its committed contracts, and which of those no tool has any more."""
    found = [finding_of(tool, known.get(tool.name, {})) for tool in tools]
    gone = sorted(known.keys() - {tool.name for tool in tools})
    return [*found, *(Finding(known[name][max(known[name], key=order)], "gone") for name in gone)]


def finding_of(tool: Tool, versions: dict[str, Tool]) -> Finding:
    """Says how one tool stands to the committed versions of it.

    A new version must take the place of the one before it, and the one after it the place of the new one: a range
    like `^1` chooses among them.
    """
    if tool.version in versions:
        before = versions[tool.version]
        if before.digest == tool.digest:
            return Finding(tool, "same")
        return Finding(tool, "changed", tool.version, contract_changes(before, tool))
    below, above = neighbours(tool.version, versions) if is_release(tool.version) else ("", "")
    changes = contract_changes(versions[below], tool) if below else []
    if not is_compatible(changes):
        return Finding(tool, "breaking", below, changes)
    if above and not is_compatible(later := contract_changes(tool, versions[above])):
        return Finding(tool, "breaking", above, later)
    return Finding(tool, "new", below, changes)


def written(folder: Path, finding: Finding) -> Finding:
    """Adds a new version to the folder.

    Raises:
        SetupError: The folder takes no file.
    """
    if finding.state != "new":
        return finding
    path = folder / finding.tool.name / f"{finding.tool.version}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_committed(finding.tool))
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from None
    return replace(finding, state="written")


def show_findings(findings: list[Finding], output: Format) -> None:
    """Prints findings: as a table, with the changes that break; else with all changes."""
    if output is Format.TABLE:
        show_table(("TOOL", "STATE", "RULE", "POINTER", "WHAT"), (row for one in findings for row in rows(one)))
        return
    listed = [
        {
            "tool": f"{one.tool.name}@{one.tool.version}",
            "state": one.state,
            "against": one.against,
            "changes": [json.loads(as_json(change)) for change in one.changes],
        }
        for one in findings
    ]
    if output is Format.JSON:
        show(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        for one in listed:
            show(json.dumps(one, ensure_ascii=False))


def rows(finding: Finding) -> Iterator[tuple[str, ...]]:
    """Yields a finding's rows of the table."""
    step = NEXT_STEPS.get(finding.state, "")
    against = f"against {finding.against}" if finding.against else ""
    yield (
        f"{finding.tool.name}@{finding.tool.version}",
        finding.state,
        "",
        "",
        ": ".join(filter(None, (against, step))),
    )
    for change in finding.changes:
        if finding.is_wrong and (change.breaking or finding.state == "changed"):
            yield ("", "", change.rule, change.pointer, change.message)
