"""`meshwright tool`: which tools there are, what is to become of their versions, and calling one."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Annotated

import typer

from meshwright.cli import contract, tool_arguments, tool_docs, tool_new, tool_serve
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, show, show_message, show_messages, show_table
from meshwright.cli.steps import shortened
from meshwright.cli.tool_listing import listed_tools
from meshwright.core.canonical import from_struct, to_struct
from meshwright.core.ids import uuid7
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    ApprovalRule,
    DeprecateToolRequest,
    Effect,
    GetToolRequest,
    InvokeToolRequest,
    SetAliasRequest,
    Tool,
)

app = typer.Typer(no_args_is_help=True, help="See which tools there are, mark their versions, and call one.")
app.command("diff")(contract.diff)
app.command("check")(contract.check)
CALL_S = 120.0
Pin = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The tool and its exact version")]


@app.command("list")
def list_tools(output: Output = Format.TABLE, edge: EdgeUrl = None) -> None:
    """Lists the newest version of every tool."""
    found = with_edge(edge, listed_tools)
    if output is not Format.TABLE:
        show_messages(found, output)
        return
    show_table(
        ("TOOL", "EFFECT", "HOST", "DESCRIPTION"),
        (
            (
                f"{tool.name}@{tool.version}",
                Effect.Name(tool.effect).removeprefix("EFFECT_").lower(),
                tool.endpoint,
                shortened(tool.description),
            )
            for tool in found
        ),
    )


@app.command()
def describe(
    name: Annotated[
        str, typer.Argument(metavar="NAME[@RANGE]", help="The tool, by version, range or alias: search@^1")
    ],
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Shows a tool's contract, who serves it, and what is to become of it."""
    tool, _, version = name.partition("@")
    request = GetToolRequest(name=tool, version=version)
    show_tool(with_edge(edge, lambda mesh: mesh.call(mesh.tools.GetTool, request)), output)


@app.command()
def alias(
    pin: Pin,
    word: Annotated[str, typer.Argument(metavar="ALIAS", help="For example stable: a selector may then say @stable")],
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Points an alias at a version; tasks that run keep theirs."""
    tool, _, version = pin.partition("@")
    request = SetAliasRequest(name=tool, alias=word, version=version)
    show_tool(with_edge(edge, lambda mesh: mesh.call(mesh.tools.SetAlias, request)), output)


@app.command()
def deprecate(
    pin: Pin,
    sunset: Annotated[
        dt.datetime,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="When nobody should rely on it any more (UTC)"),
    ],
    use: Annotated[str, typer.Option(help="What to use instead: search@^2")] = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Marks a version: it stays callable, and ranges avoid it where they can."""
    tool, _, version = pin.partition("@")
    request = DeprecateToolRequest(name=tool, version=version, replaced_by=use)
    request.sunset_time.FromDatetime(sunset)
    show_tool(with_edge(edge, lambda mesh: mesh.call(mesh.tools.DeprecateTool, request)), output)


def show_tool(tool: Tool, output: Format) -> None:
    """Prints one version of a tool."""
    if output is Format.TABLE:
        show_table(("TOOL", f"{tool.name}@{tool.version}"), described(tool))
    else:
        show_message(tool, output)


def described(tool: Tool) -> Iterator[tuple[str, str]]:
    """Says what a version promises, in rows; what does not apply is left out."""
    yield "description", tool.description
    yield "effect", Effect.Name(tool.effect).removeprefix("EFFECT_").lower()
    yield "asks a person", ApprovalRule.Name(tool.approval).removeprefix("APPROVAL_RULE_").lower()
    yield "time for a call", f"{tool.timeout.ToMilliseconds() / 1000:g} s"
    if tool.HasField("sunset_time"):
        use = f": use {tool.replaced_by}" if tool.replaced_by else ""
        yield "deprecated", f"do not rely on it after {tool.sunset_time.ToJsonString()}{use}"
    said = {"owner": tool.owner, "aliases": ", ".join(tool.aliases), "scopes": ", ".join(tool.required_scopes)}
    yield from ((what, text) for what, text in said.items() if text)
    yield "host", tool.endpoint
    yield "digest", tool.digest
    for what, schema in (("arguments", tool.input_schema), ("result", tool.output_schema)):
        yield what, json.dumps(from_struct(schema, what), ensure_ascii=False)


@app.command()
def call(
    name: Annotated[str, typer.Argument(help="The tool, with a version where it matters: docs.search@^1")],
    arguments: Annotated[
        str, typer.Argument(help="Arguments as a JSON object; @FILE holds it, or - for standard input")
    ] = "{}",
    key: Annotated[
        str, typer.Option(help="Idempotency key: the same key never doubles an effect; by default a new one")
    ] = "",
    output: Output = Format.TABLE,
    edge: EdgeUrl = None,
) -> None:
    """Calls a tool through the registry, which holds the arguments against its schema."""
    values = tool_arguments.read(arguments)
    tool, _, version = name.partition("@")
    request = InvokeToolRequest(name=tool, version=version, arguments=to_struct(values), idempotency_key=key or uuid7())
    with tool_arguments.violations_listed():
        response = with_edge(edge, lambda mesh: mesh.call(mesh.tools.InvokeTool, request, CALL_S))
    if output is Format.TABLE:
        show(json.dumps(tool_arguments.numbers(response.result), indent=2, ensure_ascii=False))
    else:
        show_message(response, output)


app.command("docs")(tool_docs.docs)
app.command("new")(tool_new.new)
app.command("serve")(tool_serve.serve)
