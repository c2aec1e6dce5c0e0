"""`meshwright agent`: who is here, and a new one."""

import typer

from meshwright.cli import agent_new
from meshwright.cli.options import EdgeUrl, Output, with_edge
from meshwright.cli.output import Format, show_messages, show_table
from meshwright.cli.steps import shortened
from meshwright.gen.registry.v1.agent_directory_service_pb2 import ListAgentsRequest

app = typer.Typer(no_args_is_help=True, help="See who is here, and begin a new one.")
app.command("new")(agent_new.new)


@app.command("list")
def list_agents(output: Output = Format.TABLE, edge: EdgeUrl = None) -> None:
    """Lists the agents that are here, and their instances."""
    found = with_edge(edge, lambda mesh: mesh.call(mesh.directory.ListAgents, ListAgentsRequest(page_size=200))).agents
    if output is not Format.TABLE:
        show_messages(found, output)
        return
    show_table(
        ("AGENT", "VERSION", "INSTANCES", "TOOLS", "DESCRIPTION"),
        (
            (
                card.agent_id,
                card.version,
                ", ".join(endpoint.target for endpoint in card.endpoints),
                ", ".join(card.tools),
                shortened(card.description),
            )
            for card in found
        ),
    )
