"""`meshwright tool docs`: documentation of tools, from what the registry knows of them."""

import json
from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby, pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from meshwright.cli.edge import Edge
from meshwright.cli.options import EdgeUrl, with_edge
from meshwright.cli.output import show
from meshwright.cli.tool_listing import listed_tools
from meshwright.cli.tool_page import ToolPage, approval, effect, index_page, timeout_s
from meshwright.core.canonical import from_struct
from meshwright.core.errors import SetupError, ToolNotFoundError
from meshwright.core.ids import TOOL_NAME, checked
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    CheckCompatibilityRequest,
    SchemaChange,
    Tool,
)

INDEX = "_index"
"""No tool is called so: names begin with a letter."""


class DocsFormat(StrEnum):
    """For whom the documentation is."""

    MARKDOWN = "markdown"
    JSON = "json"


def docs(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Tools; by default all of them")
    ] = None,
    output: Annotated[DocsFormat, typer.Option("--output", "-o", help="For people, or for programs")] = (
        DocsFormat.MARKDOWN
    ),
    folder: Annotated[
        Path | None, typer.Option(help="Folder for a file of each tool and one that lists them; by default stdout")
    ] = None,
    edge: EdgeUrl = None,
) -> None:
    """Writes the documentation of tools from their contracts; the same catalog always gives the same text."""
    pages = with_edge(edge, lambda mesh: registered(mesh, names or []))
    if folder is None:
        show(printed(pages, output, is_all=not names))
        return
    files = {page.name: text(page, output) for page in pages}
    if not names:
        files[INDEX] = index_page(pages) if output is DocsFormat.MARKDOWN else as_text([page.name for page in pages])
    suffix = ".md" if output is DocsFormat.MARKDOWN else ".json"
    write(folder, {f"{name}{suffix}": content for name, content in files.items()})


async def registered(mesh: Edge, names: Sequence[str]) -> list[ToolPage]:
    """Reads all versions of tools, by name; of all tools where none is named.

    Raises:
        ToolNotFoundError: One is not registered.
    """
    for name in names:
        checked("name", name, TOOL_NAME)
    wanted = sorted(set(names))
    found = [tool for name in wanted for tool in await listed_tools(mesh, name, all_versions=True) if tool.name == name]
    found = found if wanted else await listed_tools(mesh, all_versions=True)
    pages = [await compared(mesh, name, list(versions)) for name, versions in groupby(found, lambda tool: tool.name)]
    if missing := set(wanted) - {page.name for page in pages}:
        raise ToolNotFoundError(f"no tool {min(missing)} is registered: `meshwright tool list` shows what is")
    return pages


async def compared(mesh: Edge, name: str, versions: Sequence[Tool]) -> ToolPage:
    """Asks the registry what each version changes."""
    changes: dict[str, Sequence[SchemaChange]] = {}
    for old, new in pairwise(versions):
        request = CheckCompatibilityRequest(candidate=new, against=old.version)
        changes[new.version] = (await mesh.call(mesh.tools.CheckCompatibility, request)).changes
    return ToolPage(name, versions, changes)


def printed(pages: Sequence[ToolPage], output: DocsFormat, *, is_all: bool) -> str:
    """Returns one text for all pages."""
    if output is DocsFormat.JSON:
        return as_text([facts(page) for page in pages]).rstrip()
    texts = [page.markdown() for page in pages]
    return "\n".join([index_page(pages), *texts] if is_all else texts).rstrip()


def text(page: ToolPage, output: DocsFormat) -> str:
    """Returns the text of one page."""
    return page.markdown() if output is DocsFormat.MARKDOWN else as_text(facts(page))


def as_text(value: Any) -> str:
    """Writes JSON, members sorted."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def facts(page: ToolPage) -> dict[str, Any]:
    """Tells programs about a tool; hosts and times of registration, which differ from mesh to mesh, are left out."""
    return {"name": page.name, "versions": [version_facts(tool, page) for tool in page.versions]}


def version_facts(tool: Tool, page: ToolPage) -> dict[str, Any]:
    """Tells programs about a version; `changes` is null where it was not compared with the one before it."""
    changes = page.changes.get(tool.version)
    return {
        "version": tool.version,
        "description": tool.description,
        "effect": effect(tool),
        "approval": approval(tool),
        "timeout_s": timeout_s(tool),
        "cost_micros": tool.cost_micros,
        "required_scopes": list(tool.required_scopes),
        "redact": list(tool.redact),
        "owner": tool.owner,
        "aliases": sorted(tool.aliases),
        "sunset_time": tool.sunset_time.ToJsonString() if tool.HasField("sunset_time") else None,
        "replaced_by": tool.replaced_by,
        "digest": tool.digest,
        "arguments": from_struct(tool.input_schema, "input_schema"),
        "result": from_struct(tool.output_schema, "output_schema"),
        "changes": changes
        if changes is None
        else [json_format.MessageToDict(one, always_print_fields_with_no_presence=True) for one in changes],
    }


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes files into a folder, over those of before, and prints their paths.

    Raises:
        SetupError: One cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in sorted(files.items()):
            (folder / name).write_text(content)
    except OSError as error:
        raise SetupError(f"{error.filename} cannot be written: {error.strerror}") from None
    for name in sorted(files):
        show(str(folder / name))
