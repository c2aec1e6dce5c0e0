"""`meshwright tool`: which tools there are, and calling one."""

import json
from typing import Annotated

import typer

from meshwright.cli import tool_arguments, tool_docs, tool_new, tool_serve
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, as_json, show, show_messages, show_table
from meshwright.cli.steps import shortened
from meshwright.core.canonical import to_struct
from meshwright.core.ids import uuid7
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Effect, InvokeToolRequest, ListToolsRequest

app = typer.Typer(no_args_is_help=True, help="See which tools there are, and call one.")
CALL_S = 120.0


@app.command("list")
def list_tools(output: Output = Format.TABLE, edge: EdgeUrl = None) -> None:
    """Lists the newest version of every tool."""
    found = with_edge(edge, lambda mesh: mesh.call(mesh.tools.ListTools, ListToolsRequest(page_size=200))).tools
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
        show(as_json(response, 2 if output is Format.JSON else None))


app.command("docs")(tool_docs.docs)
app.command("new")(tool_new.new)
app.command("serve")(tool_serve.serve)
