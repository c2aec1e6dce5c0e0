"""Tools that a task is allowed to use, held against what the mesh offers: a slip of the pen would leave it without."""

import asyncio
from collections.abc import Awaitable, Sequence
from difflib import get_close_matches
from typing import TypeVar

import typer

from meshwright.cli.edge import Edge
from meshwright.cli.output import harmless
from meshwright.cli.tool_listing import listed_tools
from meshwright.core.errors import DeadlineExceededError, MeshError, ToolNotFoundError
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, ListAgentsRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2 import ListToolsRequest

CHECK_S = 10.0
"""So long the mesh is asked, for names and for those that are like them."""
PAGE_SIZE, MOST_PAGES = 200, 100
MOST_MEANT, ALIKE = 3, 0.75
"""How many names are offered for one that nobody has, and how alike they are to it: 1 is the same."""
OWN = frozenset({"ask.person", "ask.escalation", "result.read"})
"""What agents have from the mesh itself, without anybody announcing it."""
T = TypeVar("T")


async def check_offered(mesh: Edge, names: Sequence[str]) -> None:
    """Lets names pass that somebody in the mesh has: as a tool, or, `ask.AGENT`, as a delegate.

    An agent alone cannot refuse one: the list holds for the tasks below its own as well, and their agents have other
    tools. Where the mesh does not say what it offers, all names pass, and a line on stderr tells so.

    Raises:
        ToolNotFoundError: Nobody has one of them; names those that may be meant.
    """
    try:
        unknown = await in_time(unoffered(mesh, names))
    except MeshError as error:
        typer.echo(
            f"--tool was not checked, since the mesh does not list its tools: {harmless(error.message)}", err=True
        )
        return
    if unknown:
        raise await explained(mesh, unknown)


async def unoffered(mesh: Edge, names: Sequence[str]) -> list[str]:
    """Returns those of some names that nobody has.

    Raises:
        MeshError: The mesh does not say what it offers.
    """
    missing = [name for name in names if name not in OWN and not await is_registered(mesh, name)]
    of_agents = await names_of_agents(mesh) if missing else frozenset[str]()
    return [name for name in missing if name not in of_agents]


async def is_registered(mesh: Edge, name: str) -> bool:
    """Whether a tool is in the catalog, by its exact name: it is the first of those that begin so."""
    page = await mesh.call(mesh.tools.ListTools, ListToolsRequest(name_prefix=name, page_size=1))
    return any(tool.name == name for tool in page.tools)


async def names_of_agents(mesh: Edge) -> frozenset[str]:
    """Returns the names under which the agents that are here use tools, and each other."""
    found: set[str] = set()
    request = ListAgentsRequest(page_size=PAGE_SIZE)
    for _ in range(MOST_PAGES):
        page = await mesh.call(mesh.directory.ListAgents, request)
        for card in page.agents:
            found |= names_in(card)
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return frozenset(found)


def names_in(card: AgentCard) -> set[str]:
    """Returns the names under which one agent uses tools and delegates."""
    tools = {selector.partition("@")[0] for selector in card.tools}
    return tools | {f"ask.{delegate.replace('-', '_')}" for delegate in card.delegates}


async def explained(mesh: Edge, unknown: Sequence[str]) -> ToolNotFoundError:
    """Builds the refusal of names that nobody has; of those that may be meant it names what can be had in time."""
    try:
        known = sorted(OWN | await in_time(names_of_agents(mesh)) | await in_time(names_registered(mesh)))
    except MeshError:
        known = []
    meant = {name: get_close_matches(name, known, n=MOST_MEANT, cutoff=ALIKE) for name in unknown}
    told = " and ".join(f"{name} (is {' or '.join(like)} meant?)" if like else name for name, like in meant.items())
    return ToolNotFoundError(
        f"no tool and no delegate here is called {told}: `meshwright tool list` and `agent list` show what there is",
        fields={"allowed_tools": ", ".join(unknown)},
    )


async def names_registered(mesh: Edge) -> set[str]:
    """Returns the names of all tools in the catalog."""
    return {tool.name for tool in await listed_tools(mesh)}


async def in_time(asking: Awaitable[T]) -> T:
    """Waits for what the mesh is asked.

    Raises:
        DeadlineExceededError: It takes too long.
    """
    try:
        async with asyncio.timeout(CHECK_S):
            return await asking
    except TimeoutError:
        raise DeadlineExceededError(f"it did not answer within {CHECK_S:g} s") from None
