"""`meshwright dev`: the whole mesh on this machine, until Ctrl-C."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meshwright.agents.agent import load
from meshwright.cli import tool_files
from meshwright.cli.mesh import Mesh, MeshPlan
from meshwright.cli.output import show_table
from meshwright.core.settings import Settings, data_home

DEFAULT_PORT = 8080


def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the edge, on loopback")] = DEFAULT_PORT,
    data: Annotated[
        Path | None, typer.Option(help="Folder for store, logs and sockets  [default: ~/.local/share/meshwright/dev]")
    ] = None,
    docs: Annotated[Path | None, typer.Option(help="Folder that the researcher searches")] = None,
    model: Annotated[str, typer.Option(help="offline, openai:NAME[@URL], anthropic:NAME[@URL] or scripted:FILE")] = "",
    agent: Annotated[list[str] | None, typer.Option(help="An agent of yours, FILE.py:NAME; may be repeated")] = None,
    tools: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Tools of yours to serve, a .py or .yaml file; may be repeated"),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="JSON file that says what runs where, once all of it does")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=64, help="Further processes of each agent of yours, which only run tasks")
    ] = 0,
    store_port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port of the store, with a random password; 0: socket only")
    ] = 0,
    lease: Annotated[
        float, typer.Option(min=0.5, max=300, help="Seconds until a lost worker's task is taken over")
    ] = 15.0,
) -> None:
    """Runs store, registry, agents, gateway and Envoy; starts again what dies; stops all of it on Ctrl-C."""
    plan = MeshPlan(
        port=port,
        data=(data or data_home() / "dev").resolve(),
        docs=docs,
        model=model,
        agents=agent or (),
        workers=workers,
        store_port=store_port,
        lease_s=lease,
        tools=tools or (),
    )
    # Before anything starts, and before there is a loop: an import that hangs is ended by Ctrl-C.
    tool_files.check(plan.tools)
    for one in plan.agents:
        load(one)
    asyncio.run(serve(plan, ready_file))


async def serve(plan: MeshPlan, ready_file: Path | None) -> None:
    """Runs a mesh until SIGINT or SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    console = Console(stderr=True)
    mesh = Mesh(plan, ready_file, lambda what: tell(console, what))
    starting = asyncio.create_task(mesh.start())
    waiting = asyncio.create_task(stopping.wait())
    with console.status("starting store, registry, agents, gateway and Envoy …"):
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    await starting
    introduce(mesh)
    await waiting
    with console.status("stopping …"):
        await mesh.stop()


def tell(console: Console, what: str) -> None:
    """Prints what happens to a process, on one line however narrow the terminal, so that paths stay whole."""
    console.print(what, style="yellow", markup=False, highlight=False, soft_wrap=True)


def introduce(mesh: Mesh) -> None:
    """Prints what runs where, and what to try."""
    own = {"envoy": mesh.edge_url, "store": "socket in the data folder"}
    show_table(
        ("PROCESS", "WHERE", "TRY TO KILL IT"),
        ((name, own.get(name, child.target), f"kill -9 {child.pid}") for name, child in mesh.children.items()),
    )
    typer.echo(
        f'\nedge     {mesh.edge_url}   (open it in a browser, or: meshwright run "…" --stream --edge {mesh.edge_url})'
        f"\nmetrics  http://127.0.0.1:{mesh.internal_port}/metrics   (Envoy's; others: docs/monitoring.md)"
        f"\nauth     {callers(Settings.load().auth, mesh.plan.data)}"
        f"\nlogs     {mesh.plan.data / 'logs'}"
        "\nCtrl-C stops everything."
    )


def callers(auth: str, data: Path) -> str:
    """Says who may call, and how somebody becomes one of them."""
    if auth == "none":
        return "MESHWRIGHT_AUTH=none: whoever reaches the port may do everything"
    made = f"   (make one: meshwright key create --name me --scopes tasks:read,tasks:write --expires 1d --data {data})"
    return auth + (made if "keys" in auth else "")
